"""A stage as the plan has it, and what a plan must know beyond the config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Seen = Literal["same", "changed", "not looked at"]


@dataclass(frozen=True)
class DatasetFacts:
    """What keys need to know of a data set: the digest of its content and its number of samples.

    None stands for data that was not yet read, or has changed since. seen: how that is known: its
    files are as they were, or not as they were, when it was read; or it was not looked at.
    """

    fingerprint: str | None
    num_samples: int | None = None
    seen: Seen = "same"


@dataclass(frozen=True)
class RunInputs:
    """What keys need beyond the config.

    sources: config field of a target → relative file → sha256 (`tasks.user_code.source_digests`).
    schedule: of a user's own function, a digest of its samples for each epoch.
    start: sha256 of the weights that the run starts from, or None. scoring_data: of
    `sampling.scoring.data`, or None where there is none.
    files: config field of a target → file that it reads → sha256. packages: field → installed
    package that its code imports → version; in no key. definitions: file of `sources` → function or
    class → digest, to tell what of a file has changed; in no key.
    """

    sources: Mapping[str, Mapping[str, str]]
    train_data: DatasetFacts
    validation_data: DatasetFacts
    schedule: tuple[str, ...] = ()
    start: str | None = None
    scoring_data: DatasetFacts | None = None
    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    packages: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    definitions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def of_document(cls, body: Mapping[str, Any]) -> RunInputs:
        """From plain JSON, as `asdict` makes it."""
        sets = {
            name: None if body[name] is None else DatasetFacts(**body[name])
            for name in ("train_data", "validation_data", "scoring_data")
        }
        return cls(**{**body, **sets, "schedule": tuple(body["schedule"])})

    @property
    def all_packages(self) -> dict[str, str]:
        """Installed package that some target's code imports → version."""
        return {name: version for of in self.packages.values() for name, version in of.items()}


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    key: 64 hex digits, or None while a data set that it needs is not yet read.
    inputs: section → what of it changes this stage.
    parents: role (`parent`, `samples`, `observations`, `train.3` …) → the stage that is consumed.
    """

    kind: str
    epoch: int | None
    key: str | None
    inputs: Mapping[str, Any]
    parents: Mapping[str, Stage] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The stage as it is shown to people: `train · epoch 3`."""
        return self.kind if self.epoch is None else f"{self.kind} · epoch {self.epoch}"

    @property
    def number(self) -> int:
        """The epoch of a stage that belongs to one."""
        assert self.epoch is not None, self.label
        return self.epoch

    @property
    def known_key(self) -> str:
        """The key of a stage whose data was read."""
        assert self.key is not None, self.label
        return self.key
