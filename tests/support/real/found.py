"""What a run on the real parts leaves, read from the server's own files, and what is wrong."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from support.runs.command import points

from epochal.data.store.backend import DAMAGED
from epochal.data.testing.s3.objects import Objects

DIGITS = 64  # of a sha256

ATTEMPTS = frozenset({"times.json", "goodput.json"})
"""Told of the try that has computed a stage: never the same twice."""


@dataclass(frozen=True)
class Found:
    """records: stage key → its record. artifacts: names of all of them. points: of MLflow."""

    weights: str
    records: dict
    artifacts: frozenset[str]
    points: dict


def found(server_folder: Path, bucket: str, prefix: str, result: dict) -> tuple[Found, list[str]]:
    """What is there, and in words what is wrong by itself: other bytes than a name says."""
    objects = Objects(server_folder / "buckets", server_folder / "scratch")
    start, records, artifacts, wrong = f"{prefix}/stages/", {}, set(), []
    for key in objects.of(bucket):
        if key.startswith(f"{prefix}/{DAMAGED}/"):
            wrong.append(f"{key} was set aside, and no fault damages anything")
        stage, _, name = key.removeprefix(start).partition("/")
        if not key.startswith(start) or "/" in name or name in ATTEMPTS:
            continue  # of a commit inside an epoch, or told of a try
        described, file = objects.open(bucket, key)
        with file:
            data = file.read(described.num_bytes)
        if name == "record.json":
            records[stage] = json.loads(data)
            continue
        artifacts.add(f"{stage}/{name}")
        digest = name.partition(".")[0]
        if len(digest) == DIGITS and hashlib.sha256(data).hexdigest() != digest:
            wrong.append(f"{key} has other bytes than its name says")
    told = {}
    if result["mlflow_run_id"] is None:
        wrong.append("MLflow has no run of it")
    else:
        told = points(result["mlflow_run_id"], result["mlflow_tracking_uri"])
    for name, values in told.items():
        if len(set(values)) != len(values):
            wrong.append(f"MLflow holds a point of {name} twice")
    return Found(result["weights_sha256"], records, frozenset(artifacts), told), wrong


def differences(one: Found, other: Found) -> list[str]:
    """In words, what of `one` is not as `other` has it."""
    told = []
    if one.weights != other.weights:
        told.append(f"weights {one.weights[:12]} instead of {other.weights[:12]}")
    told += [
        f"record of stage {key[:12]}"
        for key in sorted(one.records.keys() | other.records.keys())
        if one.records.get(key) != other.records.get(key)
    ]
    told += [f"artifact {name} is missing" for name in sorted(other.artifacts - one.artifacts)]
    told += [f"artifact {name} is one more" for name in sorted(one.artifacts - other.artifacts)]
    for name in sorted(one.points.keys() | other.points.keys()):
        if one.points.get(name) != other.points.get(name):
            told.append(f"points of {name}: {one.points.get(name)}, not {other.points.get(name)}")
    return told
