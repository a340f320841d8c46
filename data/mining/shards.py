"""Mining from file to file: the tables of `mine_samples`, a million samples at a time.

Scores and state are of each sample by itself. What a plan needs of all samples at once is held,
and no more: under `easy_skip`, and in full epochs, whether each one rests; of other policies the
columns that they go by. The tables are read once to plan and, where they are large, again to write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from epochal.data.config.policies import USERS
from epochal.data.errors import StateMismatch
from epochal.data.mining import plan
from epochal.data.mining.mine import context_of, updated
from epochal.data.policies.shared import label_noise as noise
from epochal.data.policies.shared.difficulty import SCORE_COLUMNS
from epochal.data.policies.shared.floor import first_back, needed
from epochal.data.samples.table import SampleTable
from epochal.data.tables.schemas import Schema
from epochal.data.tables.writing import OBSERVATIONS, SAMPLES, TableReader, TableWriter

if TYPE_CHECKING:
    from epochal.data.config.sampling import SamplingConfig
    from epochal.data.policies.custom import UserPolicy
    from epochal.data.policies.shared.pool import PlanContext


# N samples of the data set, B of a shard, C classes, R that may come back


class ClassCounts:
    """How many samples each class has; unknown labels are the class -1."""

    def __init__(self) -> None:
        self.of: dict[int, int] = {}

    def add(self, label_B: npt.NDArray[np.int64]) -> None:
        """Counts these."""
        classes, counts = np.unique(np.maximum(label_B, -1), return_counts=True)
        for label, count in zip(classes.tolist(), counts.tolist(), strict=True):
            self.of[label] = self.of.get(label, 0) + count


def raise_in_shards(
    shards: Iterable[tuple[int, SampleTable]],
    keep_N: npt.NDArray[np.bool_],
    totals: ClassCounts,
    kept: ClassCounts,
    context: PlanContext,
    config: SamplingConfig,
) -> None:
    """As `policies.floor.raise_to_floor`; holds, of each class, no more than have to come back."""
    label_C = np.array(sorted(totals.of), dtype=np.int64)
    total_C = np.array([totals.of[one] for one in label_C.tolist()], dtype=np.int64)
    kept_C = np.array([kept.of.get(one, 0) for one in label_C.tolist()], dtype=np.int64)
    need_C = needed(total_C, kept_C, floor=config.floor)
    if not bool((need_C > 0).any()):
        return
    back: dict[str, npt.NDArray[Any]] = {}
    for start, table in shards:
        class_B = np.searchsorted(label_C, np.maximum(table["label"], -1))
        rows_R = np.flatnonzero(~keep_N[start : start + len(table)] & (need_C > 0)[class_B])
        found = {
            "class": class_B[rows_R],
            "row": rows_R + start,
            "loss": table["loss"][rows_R],
            "sample_id": table["sample_id"][rows_R],
        }
        if back:
            found = {name: np.concatenate([back[name], found[name]]) for name in found}
        first_Q = first_back(
            found["class"],
            found["loss"],
            found["sample_id"],
            need_C,
            epoch=context.epoch,
            seed=context.seed,
        )
        back = {name: array_R[first_Q] for name, array_R in found.items()}
    keep_N[back["row"]] = True


# N samples of the data set, B of a shard

SHARD_ROWS = 1 << 20
HELD_SHARDS = 4
"""So few are kept in memory, instead of being read again to be written."""
_ALWAYS = ("sample_id", "label", "epoch_seen", "loss", "flags")
_OF_CLASSES = ("confidence", "correct")
_READ_BY: dict[str, tuple[str, ...]] = {
    "easy_skip": _OF_CLASSES,
    "kakurenbo": _OF_CLASSES,
    "importance": ("credit",),
    "cvnets": ("easy_count",),
}
_READ_FOR_NOISE = (*_OF_CLASSES, "n_seen", "margin_sum")


@dataclass(frozen=True)
class Mined:
    """What a table came to. noise: the estimated share of wrong labels, or None."""

    kept: int
    samples: int
    noise: float | None
    suspects: int


@dataclass(frozen=True, eq=False)
class _Plan:
    """Of all samples: keep_N (None: all train), weight_N (None: all 1) and further columns."""

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
    """Writes `mine_samples` of the tables in these files to the file `into`: the same bytes.

    scores: of the scoring pass, if one followed `epoch`. metadata: what is written beside the
    columns, of what the table came to. on_shard: called after each shard; what it raises goes
    through. Raises as `mine_samples` and `read_table` do.
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
    """The updated tables of consecutive samples, with the row each begins at.

    Computed anew for each pass, where they are many. flagged: suspects in those of the last pass.
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
        found: list[tuple[int, SampleTable]] = []
        self.flagged = 0
        for one in self._computed():
            self.flagged += noise.num_suspects(one[1].columns)
            if holds:
                found.append(one)
            yield one
            self._on_shard()
        if holds:
            self._held = found

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
            for one in filter(None, (seen, scores)):
                if one.rows_taken < one.rows:
                    raise StateMismatch(
                        f"the observations: {one.rows - one.rows_taken} of their sample ids are "
                        f"above all of the {count} in the data set; was the data set changed "
                        "under one `version`?"
                    )


def _planned(
    shards: _Shards, context: PlanContext, config: SamplingConfig, own: UserPolicy | None
) -> tuple[_Plan, float | None]:
    """The plan of all samples, and the estimated share of wrong labels."""
    count = len(shards.ids_N)
    confidence_N, wrong_N = np.empty(count, np.float32), np.empty(count, np.bool_)
    verdicts = 0
    each = context.full and context.noise is None and config.policy != "custom"
    easy = not each and config.policy == "easy_skip" and context.noise is None
    keep_N = np.ones(count if easy else 0, dtype=np.bool_)
    totals, kept = ClassCounts(), ClassCounts()
    held: dict[str, npt.NDArray[Any]] = {}
    for start, table in shards:
        columns = table.columns
        confidence_S, wrong_S = noise.verdicts(columns)
        end = verdicts + len(wrong_S)
        confidence_N[verdicts:end], wrong_N[verdicts:end] = confidence_S, wrong_S
        verdicts = end
        if easy:
            keep_B = keep_N[start : start + len(table)]
            keep_B[plan.easy_rest(columns, context, config).rest_Q] = False
            totals.add(columns["label"])
            kept.add(columns["label"][keep_B])
        elif not each:
            for name in _columns_of(config, context, columns):
                if not start:
                    held[name] = np.empty(count, dtype=columns[name].dtype)
                held[name][start : start + len(table)] = columns[name]
    rate = noise.rate_of(confidence_N[:verdicts], wrong_N[:verdicts])
    del confidence_N, wrong_N
    if each:
        return _Plan(), rate
    if easy:
        raise_in_shards(shards, keep_N, totals, kept, context, config)
        return _Plan(keep_N=keep_N), rate
    found = plan.plan_epoch(SampleTable(held), context, config, own=own)
    return _Plan(keep_N=found.keep_N, weight_N=found.weight_N, more=found.more), rate


def _columns_of(
    config: SamplingConfig, context: PlanContext, columns: Mapping[str, Any]
) -> tuple[str, ...]:
    """The columns that the policy goes by; a user's own may go by any."""
    if config.policy == "custom":
        return tuple(columns)
    found = [*_ALWAYS, *_READ_BY.get(config.policy, ())]
    if config.policy in USERS["score"]:
        found += SCORE_COLUMNS[config.score]
    if context.noise is not None:
        found += _READ_FOR_NOISE
    return tuple(dict.fromkeys(found))


def _with_plan(
    table: SampleTable, planned: _Plan, start: int, context: PlanContext, config: SamplingConfig
) -> SampleTable:
    rows = slice(start, start + len(table))
    if planned.keep_N is None:  # everybody trains: each shard is its own plan
        own = plan.plan_epoch(table, context, config)
        return table.with_plan(keep_N=own.keep_N, weight_N=own.weight_N, more=own.more)
    weight_B = np.ones(len(table), dtype=np.float32)
    return table.with_plan(
        keep_N=planned.keep_N[rows],
        weight_N=weight_B if planned.weight_N is None else planned.weight_N[rows],
        more={name: array_N[rows] for name, array_N in (planned.more or {}).items()},
    )
