"""Smaller parts of a run's config: its start, commits, early end, averaging, tracking."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_serializer, model_validator

from epochal.data.types import Frozen, Target
from epochal.engine.config.numerics import (
    MetricsConfig,
)
from epochal.engine.schedule.kinds import PlateauSchedule

PICKLES = frozenset({".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".tar"})
SAFE = ".safetensors"


class WarmStartConfig(Frozen):
    """The weights that a run starts from, instead of the model's own initial ones."""

    source: str = Field(
        alias="from",
        min_length=1,
        description="a path or address of a .safetensors file, or a run: NAME, STORE/NAME, with "
        "@GENERATION and :EPOCH (or :best) behind it",
        examples=["./pretrained.safetensors", "digits@1:9", "s3://bucket/store/digits:best"],
    )
    strict: bool = Field(
        default=True,
        description="whether all names must agree, but for those that `allow_missing` and "
        "`allow_unexpected` name; shapes must agree in any case",
    )
    allow_missing: tuple[str, ...] = Field(
        default=(),
        description="patterns of names that may be missing in the file, or be of another shape "
        "there: they keep the initial weights, such as a new head's: [head.*]",
    )
    allow_unexpected: tuple[str, ...] = Field(
        default=(), description="patterns of names in the file that the model may lack"
    )

    @field_validator("source")
    @classmethod
    def _no_pickle(cls, source: str) -> str:
        suffix = PurePosixPath(source).suffix.lower()
        if suffix in PICKLES:
            raise ValueError(
                f"{source!r} is a pickle, which may run code when it is read; convert it once, "
                "where you trust it: safetensors.torch.save_file(torch.load(path, "
                f"weights_only=True), 'weights{SAFE}')"
            )
        return source

    @model_validator(mode="after")
    def _lists_act(self) -> Self:
        if not self.strict and (self.allow_missing or self.allow_unexpected):
            raise ValueError(
                "strict: false allows every difference of names; leave allow_missing and "
                "allow_unexpected out, or strict"
            )
        return self

    @model_serializer(mode="plain")
    def _as_written(self) -> dict[str, Any]:
        return {
            "from": self.source,
            "strict": self.strict,
            "allow_missing": list(self.allow_missing),
            "allow_unexpected": list(self.allow_unexpected),
        }

    @property
    def is_file(self) -> bool:
        """Whether `from` is a file, or else a run."""
        return self.source.lower().endswith(SAFE)

    def key_slice(self) -> dict[str, Any]:
        """What changes numbers beside the content of the file; its place does not."""
        return {
            name: value
            for name, value in self._as_written().items()
            if name != "from" and value not in ([], True)
        }


DEFAULT_BEST = 3


class AveragingConfig(Frozen):
    """The mean of some epochs' weights, made and validated after the last epoch."""

    best: int | None = Field(
        default=None,
        ge=1,
        description="epochs with the best `metrics.best` whose weights are averaged; none: "
        f"{DEFAULT_BEST}, where `last` is not given",
    )
    last: int | None = Field(
        default=None,
        ge=1,
        description="epochs at the end whose weights are averaged, instead of the best",
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.best is not None and self.last is not None:
            raise ValueError("give `best` or `last`, not both")
        return self

    @property
    def count(self) -> int:
        """How many epochs are averaged, if the run has that many."""
        return self.last or self.best or DEFAULT_BEST

    @property
    def what(self) -> str:
        """`best: 3`, as the config says it."""
        return f"last: {self.last}" if self.last is not None else f"best: {self.count}"

    def check(self, epochs: int) -> None:
        """Raises ValueError if a run of that many epochs cannot have it."""
        if self.count > epochs:
            raise ValueError(f"{self.what} of a run of {epochs} epochs; expected at most {epochs}")

    def key_slice(self) -> dict[str, int]:
        """The fields that change numbers, for stage keys."""
        return {"last": self.last} if self.last is not None else {"best": self.count}


class EarlyStoppingConfig(Frozen):
    """When a run ends before its last epoch."""

    metric: str | None = Field(
        default=None, description="the metric that must improve; none: the one of `metrics.best`"
    )
    patience: int = Field(
        default=5, ge=1, description="epochs in a row without an improvement that end the run"
    )
    min_delta: float = Field(
        default=0.0, ge=0, description="what a value must be better by to count as an improvement"
    )
    mode: Literal["max", "min"] | None = Field(
        default=None,
        description="whether the largest or the smallest is best; none: as for `metrics.best`",
    )
    start: int = Field(
        default=0, ge=0, description="epoch from which values count; those before it are not seen"
    )


def rule(
    config: EarlyStoppingConfig | PlateauSchedule, metrics: MetricsConfig
) -> tuple[str, Literal["max", "min"]]:
    """The metric that is watched, and the direction in which it improves."""
    metric = config.metric or metrics.best_metric
    same = metric == metrics.best_metric
    asked = metrics.model_copy(
        update={"best": metric, "best_mode": metrics.best_mode if same else None}
    )
    return metric, config.mode or asked.best_direction


class CheckpointConfig(Frozen):
    """When checkpoints are written inside an epoch, and which finished ones are kept."""

    every_seconds: float = Field(
        default=60.0,
        gt=0,
        description="seconds between two commits inside an epoch; 60 loses at most a minute",
    )
    every_updates: int | None = Field(
        default=None, ge=1, description="updates between two commits inside an epoch; none: by time"
    )
    grace_seconds: float = Field(
        default=15.0,
        gt=0,
        le=3600,
        description="seconds that a run which is being ended may take for its last commit; Prefect "
        "grants 30 for all, a spot machine 120",
    )
    keep_last: int | None = Field(
        default=None,
        ge=2,
        description="epochs at the end whose checkpoints stay; none: all stay. Two at least: one "
        "to resume from if the other is damaged",
    )
    keep_best: int = Field(
        default=1, ge=0, description="epochs of the best metric whose checkpoints stay"
    )


ADDRESS = r"^([^\s:@/\[\]]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?$"
PORT = 29431
"""Where processes of other machines reach a run that names no port."""


class LaunchConfig(Frozen):
    """Where the user's code runs: in a process of its own, or in the one that orchestrates."""

    kind: Literal["local", "inline", "elastic", "ray"] = Field(
        default="local",
        description="local: model and data run in a trainer process with one Python thread, apart "
        "from Prefect, MLflow and the store. inline: in the calling process, for a debugger or a "
        "notebook; items that draw random numbers may then differ from run to run. elastic, ray: "
        "in trainer processes that torch's elastic agent or Ray starts, here and on other machines",
    )
    processes: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="processes that share each update, at most gradients.shards; the result is the "
        "same to the last bit for any number of them",
    )
    shard_model: bool = Field(
        default=False,
        description="whether each process holds a slice of weights, gradients, optimizer and "
        "average instead of all (FSDP2), for a model larger than a device; the result is the same "
        "to the last bit",
    )
    shard_blocks: tuple[str, ...] = Field(
        default=(),
        examples=[["TransformerEncoderLayer"]],
        description="with shard_model, classes of the model's modules whose weights are gathered "
        "together; none: the layers of its containers",
    )
    max_restarts: int = Field(
        default=3,
        ge=0,
        le=1000,
        description="how often several processes start again from the last commit in one run, "
        "where one of them was killed",
    )
    nodes: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="machines of kind elastic, each with as many processes: this one, and those "
        "where `epochal join` runs",
    )
    address: str = Field(
        default="127.0.0.1",
        pattern=ADDRESS,
        description="of this machine, as HOST or HOST:PORT: where processes reach the run that "
        "elastic or ray starts; other machines need one that they see. Without a port: any, and "
        f"{PORT} where there are several nodes",
    )
    cluster: str | None = Field(
        default=None,
        min_length=1,
        description="Ray's cluster: `auto`, or the HOST:PORT of its head; none: a Ray of this run "
        "on this machine. This machine is a node of it",
    )
    wait_seconds: float = Field(
        default=600.0,
        gt=0,
        description="how long elastic and ray wait for processes that have not come or are lost, "
        "before the run ends with exit code 75",
    )
    silence_seconds: float = Field(
        default=300.0,
        gt=0,
        description="seconds without a sign of the trainer after which it is said where it stands",
    )

    @property
    def joined(self) -> bool:
        """Whether an engine starts the processes, which then join the run."""
        return self.kind in {"elastic", "ray"}

    @property
    def processes_here(self) -> int:
        """How many processes this machine has for certain."""
        return 1 if self.kind == "ray" else self.processes // self.nodes

    @property
    def listening(self) -> tuple[str, int]:
        """Host and port where a run awaits its processes; port 0: any."""
        host, port = split_address(self.address)
        if port is None:
            port = PORT if self.nodes > 1 else 0
        return host, port

    def check(self) -> None:
        """Raises ValueError for what does not go together."""
        if self.processes > 1 and self.kind == "inline":
            raise ValueError(
                "launch.processes: several processes are not one; use launch.kind: local"
            )
        if self.shard_blocks and not self.shard_model:
            raise ValueError("launch.shard_blocks: nothing is sharded; give launch.shard_model")
        if self.shard_model and self.kind in {"elastic", "ray"}:
            raise ValueError(
                f"launch.shard_model: processes of launch.kind: {self.kind} have no memory in "
                "common, in which checkpoints are put together of slices; use launch.kind: local"
            )
        if self.processes % self.nodes:
            raise ValueError(
                f"launch.nodes: {self.nodes} machines cannot have as many of launch.processes: "
                f"{self.processes} each; expected a number that divides it"
            )
        for field, kind in (("nodes", "elastic"), ("cluster", "ray")):
            given = getattr(self, field)
            if given != type(self).model_fields[field].default and self.kind != kind:
                raise ValueError(
                    f"launch.{field}: {given} is of launch.kind: {kind}; found kind: {self.kind}"
                )
        host, _ = split_address(self.address)
        if self.nodes > 1 and host in OF_THIS_MACHINE:
            raise ValueError(
                f"launch.address: {self.address} leads no other machine to this one; for "
                f"launch.nodes: {self.nodes} give the address by which the others reach it"
            )


class SweepPart(Frozen):
    """What a sweep asks of the flow of one of its runs. In no stage key."""

    sweep: str = Field(min_length=1, max_length=100, description="the sweep's name")
    parent: str | None = Field(
        default=None, max_length=100, description="MLflow's run of the sweep; none: not known"
    )
    until: int | None = Field(
        default=None,
        ge=1,
        description="number of epochs after which the run is left for later; none: all of them",
    )

    @property
    def tags(self) -> dict[str, str]:
        """Of the run in MLflow."""
        parent = {} if self.parent is None else {"mlflow.parentRunId": self.parent}
        return {**parent, "epochal.sweep": self.sweep}


OF_THIS_MACHINE = frozenset({"127.0.0.1", "localhost", "::1", "0.0.0.0", "::"})  # noqa: S104 - refused


def split_address(address: str) -> tuple[str, int | None]:
    """Host and port of `HOST`, `HOST:PORT` or `[HOST]:PORT`. Raises ValueError."""
    if re.match(ADDRESS, address) is None:
        raise ValueError(f"{address!r} is no address; expected HOST:PORT")
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        host, port = address, ""
    if port and not 0 < int(port) < 1 << 16:
        raise ValueError(f"{address!r}: expected a port from 1 to 65535")
    return host.strip("[]"), int(port) if port else None


BUILT_IN_TRACKERS = {
    "tensorboard": "epochal.tasks.trackers.built_in:TensorBoard",
    "trackio": "epochal.tasks.trackers.built_in:Trackio",
}


def _named(tracker: Any) -> Any:
    """A tracker by its short name, alone or as a target, as the target that it stands for."""
    if isinstance(tracker, str):
        if tracker not in BUILT_IN_TRACKERS:
            raise ValueError(
                f"{tracker!r} is no tracker by name: expected {' or '.join(BUILT_IN_TRACKERS)}, or "
                "a mapping {target: module:class}"
            )
        return {"target": BUILT_IN_TRACKERS[tracker]}
    if isinstance(tracker, dict) and tracker.get("target") in BUILT_IN_TRACKERS:
        return {**tracker, "target": BUILT_IN_TRACKERS[tracker["target"]]}
    return tracker


class TrackingConfig(Frozen):
    """Where curves, parameters and models are delivered."""

    uri: str | None = Field(
        default=None,
        min_length=1,
        examples=["http://127.0.0.1:5000", "sqlite:////data/mlflow.db"],
        description="MLflow's tracking address; none: MLFLOW_TRACKING_URI, else the server that "
        "`epochal up` started, else sqlite:///$HOME/.epochal/mlflow.db",
    )
    experiment: str = Field(
        default="epochal",
        min_length=1,
        max_length=500,
        description="MLflow's experiment that holds the run",
    )
    log_every_updates: int = Field(
        default=1,
        ge=1,
        description="deliver every n-th update and each epoch's last; 1: all, as a row costs "
        "0.1 ms beside the training. The store's tables always hold every update",
    )
    thinned: bool = Field(
        default=True,
        description="of a metric with more than some thousand updates deliver the least and the "
        "greatest value of every few; false: every one. The store's tables hold all in any case",
    )
    export: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="the best model's graph for mlflow.pytorch.load_model, by torch.export; auto: "
        "where a process that outlives the command makes it; always: else the command waits for it",
    )
    system_metrics: bool = Field(
        default=False,
        description="processor, memory, disk, network and GPU of the machine that orchestrates, "
        "every 10 s, by MLflow",
    )
    also: tuple[Target, ...] = Field(
        default=(),
        max_length=8,
        examples=[["tensorboard"], [{"target": "my_tracker:ToFile", "args": {"path": "./x"}}]],
        description="further trackers, each point at least once: tensorboard, trackio, or a target "
        "of one's own with the methods open, log and close",
    )

    @field_validator("also", mode="before")
    @classmethod
    def _by_name(cls, also: Any) -> Any:
        return [_named(one) for one in also] if isinstance(also, list | tuple) else also
