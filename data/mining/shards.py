"""Mining from files to a file, in shards of a million samples, so that large tables fit in memory.

Scores and state of a sample depend on that sample alone and are computed shard by shard. A plan
needs some things of all samples at once, and only these are held in memory: for a policy that
judges each sample by itself one byte a sample, whether it rests; for other policies the columns
that they read; for a full epoch nothing. Tables are read once to plan and, if they are large, again
to write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from epochal.data.errors import StateMismatch
from epochal.data.mining.plan import UserPolicy, context_of, each_by_itself, plan_epoch, updated
from epochal.data.policies.shared import label_noise as noise
from epochal.data.policies.shared.difficulty import SCORE_COLUMNS
from epochal.data.policies.shared.floor import ClassFloor
from epochal.data.samples.table import SampleTable
from epochal.data.tables.schemas import Schema
from epochal.data.tables.writing import OBSERVATIONS, SAMPLES, TableReader, TableWriter

if TYPE_CHECKING:
    from epochal.data.config.sampling import SamplingConfig
    from epochal.data.policies.shared.pool import PlanContext


# N samples of the data set, B of a shard

SHARD_ROWS = 1 << 20
HELD_SHARDS = 4
"""Tables of up to so many shards stay in memory between planning and writing."""
_ALWAYS = ("sample_id", "label", "epoch_seen", "loss", "flags")
_READ_FOR_NOISE = ("confidence", "correct", "n_seen", "margin_sum")


@dataclass(frozen=True)
class Mined:
    """Counts of a planned table.

    kept: samples that train. samples: all. suspects: samples whose label is flagged as wrong.
    noise: the estimated share of wrong labels, from 0 to 1, or None.
    """

    kept: int
    samples: int
    noise: float | None
    suspects: int


@dataclass(frozen=True, eq=False)
class _Plan:
    """A plan of all samples: keep_N (None: all train), weight_N (None: all 1), further columns."""

    keep_N: npt.NDArray[np.bool_] | None = None
    weight_N: npt.NDArray[np.float32] | None = None
    more: Mapping[str, npt.NDArray[Any]] | None = None


def mine_files(
    previous: Path | None,
    observations: Path,
    into: Path,
    config: SamplingConfig,
    *,
    sample_ids_N: npt.NDArray[np.int64],
    epoch: int,
    epochs: int,
    seed: int,
    metadata: Callable[[Mined], Mapping[str, str]],
    scores: Path | None = None,
    own: UserPolicy | None = None,
    shard_rows: int = SHARD_ROWS,
    on_shard: Callable[[], None] = lambda: None,
) -> Mined:
    """Writes the table after `epoch`, with the plan of the epoch after it, to the file `into`.

    previous: the table before, None at first. observations: of the epoch, of a run of `epochs`.
    sample_ids_N: of the data set, by position. scores: of the scoring pass, if one followed
    `epoch`. own: the function of policy custom. metadata: gives what is written beside the columns,
    from the table's counts. shard_rows: samples at a time; the file's bytes do not depend on it.
    on_shard: called after each shard; an error that it raises ends the mining.

    Raises StateMismatch if table, observations and data set are not of the same samples,
    TargetError if `own` returns no plan, CorruptObject as `read_table`.
    """
    ids_N = np.asarray(sample_ids_N, dtype=np.int64)
    if not bool(np.all(ids_N[1:] > ids_N[:-1])):
        ids_N = np.sort(ids_N)
    files = _Files(previous, observations, scores)
    shards = _Shards(files, config, ids_N, epoch, seed, shard_rows, on_shard)
    context = context_of(config, epoch + 1, epochs=epochs, seed=seed)
    planned, rate = _planned(shards, context, config, own)
    kept, suspects = len(ids_N), shards.flagged
    if planned.keep_N is not None:
        kept = int(np.count_nonzero(planned.keep_N))
    if planned.more is not None and "flags" in planned.more:
        suspects = noise.num_suspects(planned.more)
    mined = Mined(kept=kept, samples=len(ids_N), noise=rate, suspects=suspects)
    with ExitStack() as stack:
        writer: TableWriter | None = None
        for start, table in shards:
            columns = _with_plan(table, planned, start, context, config).columns
            if writer is None:
                writer = stack.enter_context(
                    TableWriter(into, schema=SAMPLES, names=columns, metadata=metadata(mined))
                )
            writer.write(columns)
    return mined


@dataclass(frozen=True)
class _Files:
    """What is mined from; the arguments of `mine_files`."""

    previous: Path | None
    observations: Path
    scores: Path | None


class _Shards:
    """Iterates over (first row, updated table) of consecutive parts of the samples.

    More than `HELD_SHARDS` of them are computed anew each time that they are iterated over.
    flagged: suspects that the tables have, counted while they are iterated over.
    """

    def __init__(
        self,
        files: _Files,
        config: SamplingConfig,
        ids_N: npt.NDArray[np.int64],
        epoch: int,
        seed: int,
        shard_rows: int,
        on_shard: Callable[[], None],
    ) -> None:
        self._files = files
        self._config, self._epoch, self._seed = config, epoch, seed
        self._rows, self._on_shard = shard_rows, on_shard
        self._held: list[tuple[int, SampleTable]] | None = None
        self.ids_N = ids_N
        self.flagged = 0

    def __iter__(self) -> Iterator[tuple[int, SampleTable]]:
        if self._held is not None:
            yield from self._held
            return
        holds = len(self.ids_N) <= HELD_SHARDS * self._rows
        shards: list[tuple[int, SampleTable]] = []
        self.flagged = 0
        for start, table in self._computed():
            self.flagged += noise.num_suspects(table.columns)
            if holds:
                shards.append((start, table))
            yield start, table
            self._on_shard()
        if holds:
            self._held = shards

    def _computed(self) -> Iterator[tuple[int, SampleTable]]:
        count, files = len(self.ids_N), self._files
        with ExitStack() as stack:

            def opened(path: Path | None, schema: Schema) -> TableReader | None:
                if path is None:
                    return None
                return stack.enter_context(TableReader(path, schema=schema, max_rows=count))

            before = opened(files.previous, SAMPLES)
            seen, scores = (
                opened(files.observations, OBSERVATIONS),
                opened(files.scores, OBSERVATIONS),
            )
            assert seen is not None
            for start in range(0, count, self._rows):
                ids_B = self.ids_N[start : start + self._rows]
                last = int(ids_B[-1])
                table = updated(
                    None if before is None else SampleTable(before.take(len(ids_B))),
                    seen.take_through(last),
                    self._config,
                    sample_ids_N=ids_B,
                    epoch=self._epoch,
                    seed=self._seed,
                    scores=None if scores is None else scores.take_through(last),
                )
                yield start, table
            for reader in filter(None, (seen, scores)):
                if reader.rows_taken < reader.rows:
                    raise StateMismatch(
                        f"the observations: {reader.rows - reader.rows_taken} of their sample "
                        f"ids are above all of the {count} in the data set; was the data set "
                        "changed under one `version`?"
                    )


def _planned(
    shards: _Shards, context: PlanContext, config: SamplingConfig, own: UserPolicy | None
) -> tuple[_Plan, float | None]:
    """The plan of all samples, and the estimated share of wrong labels."""
    count = len(shards.ids_N)
    confidence_N, wrong_N = np.empty(count, np.float32), np.empty(count, np.bool_)
    verdicts = 0
    all_train = context.full and context.noise is None
    each = not all_train and config.declaration.each is not None and context.noise is None
    keep_N = np.ones(count if each else 0, dtype=np.bool_)
    classes = ClassFloor(floor=config.floor, epoch=context.epoch, seed=context.seed)
    held: dict[str, npt.NDArray[Any]] = {}
    for start, table in shards:
        columns = table.columns
        confidence_S, wrong_S = noise.verdicts(columns)
        end = verdicts + len(wrong_S)
        confidence_N[verdicts:end], wrong_N[verdicts:end] = confidence_S, wrong_S
        verdicts = end
        if each:
            keep_B = keep_N[start : start + len(table)]
            keep_B[each_by_itself(columns, context, config).rest_Q] = False
            classes.count(columns["label"], keep_B)
        elif not all_train:
            for name in _columns_of(config, context, columns):
                if not start:
                    held[name] = np.empty(count, dtype=columns[name].dtype)
                held[name][start : start + len(table)] = columns[name]
    rate = noise.rate_of(confidence_N[:verdicts], wrong_N[:verdicts])
    del confidence_N, wrong_N
    if all_train:
        return _Plan(), rate
    if each:
        if classes.is_short:
            for start, table in shards:
                classes.offer(start, table.columns, keep_N[start : start + len(table)])
            keep_N[classes.rows_back] = True
        return _Plan(keep_N=keep_N), rate
    planned = plan_epoch(SampleTable(held), context, config, own=own)
    return _Plan(keep_N=planned.keep_N, weight_N=planned.weight_N, more=planned.more), rate


def _columns_of(
    config: SamplingConfig, context: PlanContext, columns: Mapping[str, Any]
) -> tuple[str, ...]:
    """The columns that the policy and the rules of all policies read to plan the epoch."""
    policy = config.declaration
    if policy.reads is None:
        return tuple(columns)
    names = [*_ALWAYS, *policy.reads]
    if "score" in policy.takes:
        names += SCORE_COLUMNS[config.score]
    if context.noise is not None:
        names += _READ_FOR_NOISE
    return tuple(dict.fromkeys(names))


def _with_plan(
    table: SampleTable, planned: _Plan, start: int, context: PlanContext, config: SamplingConfig
) -> SampleTable:
    rows = slice(start, start + len(table))
    if planned.keep_N is None:  # everybody trains: each shard is its own plan
        shard = plan_epoch(table, context, config)
        return table.with_plan(keep_N=shard.keep_N, weight_N=shard.weight_N, more=shard.more)
    weight_B = np.ones(len(table), dtype=np.float32)
    return table.with_plan(
        keep_N=planned.keep_N[rows],
        weight_N=weight_B if planned.weight_N is None else planned.weight_N[rows],
        more={name: array_N[rows] for name, array_N in (planned.more or {}).items()},
    )
