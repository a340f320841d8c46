"""Data that depends on the order of a set of texts, which is another in each Python process.

Asked only where items are not what they were: two processes with hash seeds of their own make the
data set and read the items in question.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from epochal.data.errors import DataError
from epochal.data.inspection.item_reader import ItemReader
from epochal.data.inspection.seen import SeenItem, differences
from epochal.data.inspection.unsteady import unsteady
from epochal.tasks.config.run import RunConfig
from epochal.tasks.run_data.make import make_dataset
from epochal.tasks.runs.run_sources import DataField

SEEDS = ("1", "2")
LIMIT_S = 600.0
"""Far more than two processes take that import torch: on a busy machine that alone is minutes."""
CAUSE = (
    "it depends on the order of a set or a hash of texts, which Python changes from process to "
    "process; go through a set by sorted(…)"
)


def check_hash_order(config: RunConfig, field: DataField, positions: Sequence[int]) -> str | None:
    """Raises DataError if items at these positions are others under another hash seed.

    Returns what a person should be told where that was not found out, since a process failed or
    took longer than `LIMIT_S`; None where the items are the same.
    """
    with tempfile.TemporaryDirectory(prefix="epochal-data-") as folder:
        asked = Path(folder) / "asked.json"
        body = {"config": config.model_dump(mode="json"), "field": field, "seen": list(positions)}
        asked.write_text(json.dumps(body))
        found = [Path(folder) / f"found-{seed}.json" for seed in SEEDS]
        processes = [
            subprocess.Popen(  # noqa: S603 - this very file
                [sys.executable, "-m", __name__, str(asked), str(file)],
                env={**os.environ, "PYTHONHASHSEED": seed},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for seed, file in zip(SEEDS, found, strict=True)
        ]
        try:
            if failed := [process for process in processes if process.wait(LIMIT_S)]:
                return _not_found_out(field, f"ended with {failed[0].returncode}")
        except subprocess.TimeoutExpired:
            return _not_found_out(field, f"took longer than {LIMIT_S:.0f} s")
        finally:
            for process in processes:
                process.kill()
                process.wait()
        first, second = (
            [SeenItem.model_validate(one) for one in json.loads(file.read_text())] for file in found
        )
    if told := differences(first, second, dataset=None):
        raise DataError(unsteady(field, first[0].position, f"{told[0]}: {CAUSE}"))
    return None


def _not_found_out(field: DataField, why: str) -> str:
    return (
        f"{field}: whether it depends on the order of a set or a hash of texts, which Python "
        f"changes from process to process, was not found out: the process that was to tell {why}; "
        "start again with another PYTHONHASHSEED: its content must not change by that"
    )


def main(asked: Path, found: Path) -> None:
    """Reads the items that are asked for, and writes what they are."""
    body = json.loads(asked.read_text())
    config = RunConfig.model_validate(body["config"])
    dataset = make_dataset(config, body["field"])
    seen = ItemReader(dataset, len(dataset), body["field"]).look(body["seen"])
    found.write_text(json.dumps([one.model_dump(mode="json") for one in seen]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
