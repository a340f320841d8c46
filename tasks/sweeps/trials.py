"""What Optuna proposes, kept in the store: the same sweep goes on with the same trials.

    sweeps/<name>/<digest of the search>/NNNNNN.json     the values of a batch: from that trial on

A batch is proposed once all trials before it have a result. The study is built anew each time, from
these results, with a seed of the batch: so a proposal follows from the results alone, and not from
the moment when they came, or from how often the sweep was interrupted.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from epochal.data.documents import dump_document, load_document
from epochal.data.errors import ConfigError, CorruptObject, passes_through
from epochal.data.hashing import digest, seed_64
from epochal.data.store.store import Store
from epochal.data.types import from_json, in_json, in_key
from epochal.tasks.sweeps.config import Distribution, OptunaConfig
from epochal.tasks.sweeps.members import Sweep, Values, within

MAX_BATCH_BYTES = 1 << 22
_SEEDS = 1 << 31


def check_optuna(config: OptunaConfig) -> None:
    """Raises ConfigError where Optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError(
            "optuna: it is not installed; pip install 'epochal[optuna]', or use `random: {runs: N}`"
        )
    if config.at_once > config.trials:
        raise ConfigError(
            f"optuna.at_once: {config.at_once} is more than optuna.trials: {config.trials}"
        )


class Trials:
    """The proposals of one search, in its store."""

    def __init__(self, store: Store, sweep: Sweep) -> None:
        assert sweep.config.optuna is not None
        self._store, self._config = store, sweep.config.optuna
        self._place = Path(sweep.config.folder)
        self._axes = {
            name: values if isinstance(values, Distribution) else Distribution(choice=values)
            for name, values in sweep.config.axes
        }
        search = {
            **self._config.model_dump(mode="json", exclude={"trials"}),
            "vary": in_key(sweep.config.vary or {}),
            "base": in_key({name: sweep.base[name] for name in sweep.base if name != "folder"}),
        }
        self._folder = f"sweeps/{sweep.name}/{digest('search', search)[:16]}"
        self.sets: list[Values] = []
        """Of all trials that were proposed so far."""
        while self.left and (kept := self._read()):
            self.sets += kept

    @property
    def left(self) -> int:
        """Trials that are not yet proposed."""
        return self._config.trials - len(self.sets)

    @property
    def _path(self) -> str:
        return f"{self._folder}/{len(self.sets):06d}.json"

    @property
    def _batch_size(self) -> int:
        return min(self._config.at_once, self.left)

    def propose(self, results: Sequence[float | None], *, mode: str) -> list[Values]:
        """The next batch of trials, kept before it is given.

        results: of all trials so far, in their order; None: failed, or no finite value.
        Raises ConfigError if the sampler cannot propose.
        """
        assert len(results) == len(self.sets), (len(results), len(self.sets))
        found = self._ask(results, mode=mode)
        try:
            self._store.put_new(
                self._path, dump_document({"trials": [in_json(one) for one in found]})
            )
        except FileExistsError:  # another command of this sweep has just proposed them
            found = self._read() or found
        self.sets += found
        return found

    def _read(self) -> list[Values]:
        """The batch that comes next, if it is there."""
        path = self._path

        def load(data: bytes) -> list[Values]:
            trials = load_document(data, name=path, max_bytes=MAX_BATCH_BYTES).get("trials")
            if not isinstance(trials, list) or not all(
                isinstance(one, dict) and one.keys() == self._axes.keys() for one in trials
            ):
                raise CorruptObject(f"{path}: expected the values of trials")
            return [from_json(one) for one in trials][: self.left]

        try:
            return self._store.read_intact(path, load, max_bytes=MAX_BATCH_BYTES)
        except FileNotFoundError:
            return []
        except CorruptObject as error:
            self._store.set_aside(path, str(error))
            return []

    def _ask(self, results: Sequence[float | None], *, mode: str) -> list[Values]:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        distributions = {name: _of_optuna(one) for name, one in self._axes.items()}
        study = optuna.create_study(
            direction="minimize" if mode == "min" else "maximize",
            sampler=self._sampler(),
        )
        states = optuna.trial.TrialState
        for own, value in zip(self.sets, results, strict=True):
            study.add_trial(
                optuna.trial.create_trial(
                    state=states.COMPLETE if value is not None else states.FAIL,
                    value=value,
                    params={name: _to_optuna(self._axes[name], own[name]) for name in self._axes},
                    distributions=distributions,
                )
            )
        asked = [study.ask(distributions).params for _ in range(self._batch_size)]
        return [
            {name: _from_optuna(one, params[name]) for name, one in self._axes.items()}
            for params in asked
        ]

    def _sampler(self) -> Any:
        from epochal.tasks.user_code.targets import resolve_target

        target = self._config.sampler
        args = dict(target.args)
        if target.target.endswith(":TPESampler"):
            args.setdefault("constant_liar", True)  # else trials of one batch crowd at one place
        seed = seed_64("optuna", self._config.seed, len(self.sets)) % _SEEDS
        try:
            return resolve_target(target, field="optuna.sampler", folder=self._place)(
                **args, seed=seed
            )
        except Exception as error:
            if passes_through(error):
                raise
            raise ConfigError(
                f"optuna.sampler: {target.target} with {args} and a seed: "
                f"{type(error).__name__}: {error}"
            ) from error


def _of_optuna(one: Distribution) -> Any:
    import optuna.distributions as of_optuna

    if one.bounds is None:  # by their number: Optuna takes no lists, and 1 for 1.0
        return of_optuna.CategoricalDistribution([*range(len(one.ends))])
    low, high = one.bounds
    if one.whole:
        return of_optuna.IntDistribution(int(low), int(high), log=one.log)
    return of_optuna.FloatDistribution(float(low), float(high), log=one.log)


def _to_optuna(one: Distribution, value: Any) -> Any:
    return one.ends.index(value) if one.bounds is None else value


def _from_optuna(one: Distribution, value: Any) -> Any:
    if one.bounds is None:
        return one.ends[value]
    return within(one, value)
