"""A stage's record: what it was made of, in which environment, and what came out.

Its bytes are a document (`epochal.data.documents`): equal records give equal bytes. What is read
from a record is checked before it becomes a path. Knows no store.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from functools import cache
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from epochal.data.documents import dump_document, load_document
from epochal.data.errors import BadStore, CorruptObject
from epochal.data.store.addresses import is_segment

FORMAT = 1  # of the record's body

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SUFFIX = re.compile(r"[a-z0-9]{1,32}")
_STAGE = re.compile(r"[a-z][a-z_]{0,63}")

_Count = Annotated[int, Field(strict=True, ge=0)]


def is_sha256(text: str) -> bool:
    """Whether `text` is 64 lower-case hexadecimal digits."""
    return _SHA256.fullmatch(text) is not None


@dataclass(frozen=True)
class Artifact:
    """One immutable object of a stage's folder. ValueError if a field cannot be right.

    file: `<sha256>.<suffix>`. sha256: of its bytes. size: in bytes.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    file: str
    sha256: str
    size: _Count

    def __post_init__(self) -> None:
        stem, _, suffix = self.file.partition(".")
        if not is_sha256(stem) or stem != self.sha256 or _SUFFIX.fullmatch(suffix) is None:
            message = f"artifact file {self.file!r}: expected its sha256, a dot and a suffix"
            raise ValueError(message)


@dataclass(frozen=True)
class StageRecord:
    """The commit of one stage. ValueError if a field cannot be right.

    stage: kind of the stage (`train` …). epoch: from 0; None for stages outside epochs.
    key: the stage's key, 64 hexadecimal digits.
    inputs: what the key was made from, for people and for comparing.
    environment: the numerics environment, plain JSON; environment_digest: its digest.
    consumed: name → sha256 of every artifact of another stage that was read.
    artifacts: name → artifact. values: numbers and texts that came out, plain JSON.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    stage: str
    epoch: _Count | None
    key: str
    inputs: dict[str, Any]
    environment: dict[str, Any]
    environment_digest: str
    consumed: dict[str, str]
    artifacts: dict[str, Artifact]
    values: dict[str, Any]

    def __post_init__(self) -> None:
        if _STAGE.fullmatch(self.stage) is None:
            raise ValueError(f"stage {self.stage!r}: expected lower-case letters and '_'")
        for name, digest in {"key": self.key, **self.consumed}.items():
            if not is_sha256(digest):
                raise ValueError(f"{name} is {digest!r}, expected 64 hexadecimal digits")
        for name in self.artifacts:
            if not is_segment(name):
                raise ValueError(f"artifact name {name!r}: expected letters, digits, '.', '_', '-'")

    @property
    def title(self) -> str:
        """How messages name the stage: `train of epoch 3 (key 0123456789ab)`."""
        epoch = "" if self.epoch is None else f" of epoch {self.epoch}"
        return f"{self.stage}{epoch} (key {self.key[:12]})"


def dump_record(record: StageRecord) -> bytes:
    """The bytes of `record.json`. Raises TypeError or ValueError for what JSON cannot hold."""
    return dump_document({"format": FORMAT, **asdict(record)})


def load_record(data: bytes, *, name: str, key: str) -> StageRecord:
    """The record in `data`, of the stage `key`; `name` is for the message.

    Raises CorruptObject, or BadStore if a newer version of Epochal wrote it.
    """
    body = load_document(data, name=name)
    stored_format = body.pop("format", None)
    if type(stored_format) is int and stored_format > FORMAT:
        raise BadStore(
            f"{name} has format {stored_format}, this version of Epochal reads up to {FORMAT}: "
            "install the newer version that wrote it, or use another store"
        )
    try:
        record = _adapter().validate_python(body)
    except ValidationError as error:
        reasons = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise CorruptObject(f"{name} is no stage record: {reasons}") from error
    if type(stored_format) is not int or stored_format != FORMAT or record.key != key:
        raise CorruptObject(f"{name} is not the record of stage {key}: it names {record.key}")
    return record


def differences(record: StageRecord, other: StageRecord) -> list[str]:
    """How two records of one key differ, in words: `artifact model: 01ab… → 23cd…`."""
    lines = [
        f"{name}: {getattr(record, name)!r:.200} → {getattr(other, name)!r:.200}"
        for name in ("stage", "epoch", "environment_digest")
        if getattr(record, name) != getattr(other, name)
    ]
    for title, before, after in (
        ("input", record.inputs, other.inputs),
        ("environment", record.environment, other.environment),
        ("consumed", record.consumed, other.consumed),
        ("artifact", _digests(record), _digests(other)),
        ("value", record.values, other.values),
    ):
        lines += [
            f"{title} {name}: {_shown(before, name)} → {_shown(after, name)}"
            for name in sorted(before.keys() | after.keys())
            if name not in before or name not in after or before[name] != after[name]
        ]
    return lines


def _digests(record: StageRecord) -> dict[str, Any]:
    return {name: artifact.sha256 for name, artifact in record.artifacts.items()}


def _shown(values: dict[str, Any], name: str) -> str:
    if name not in values:
        return "absent"
    text = repr(values[name])
    return text if len(text) <= 80 else f"{text[:79]}…"  # noqa: PLR2004


@cache
def _adapter() -> TypeAdapter[StageRecord]:
    return TypeAdapter(StageRecord)
