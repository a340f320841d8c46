"""The runs of a sweep: what each has of its own, its name, and its whole config.

A name says what a run has of its own (`digits-lr0.003-decay4`) and follows from that alone, so it
stays when the sweep grows.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epochal.data.errors import ConfigError
from epochal.data.hashing import digest, seed_64
from epochal.data.types import in_key
from epochal.tasks.config.load import (
    build_config,
    built,
    describes_sweep,
    parsed_override,
    set_field,
)
from epochal.tasks.config.run import RunConfig, flatten
from epochal.tasks.config.yaml_reader import read_yaml_mapping
from epochal.tasks.sweeps.config import MAX_RUNS, MAX_SWEEP_NAME, Distribution, SweepConfig

MAX_NAME = 100
SIGNIFICANT = 6  # of a drawn number: so it can be written again
SHOWN = 4  # of a number in a name
_REFUSED = re.compile(r"[^A-Za-z0-9._]+")
_BARE = frozenset({"kind", "target"})
"""Last parts of fields whose value says what it is of."""
Values = Mapping[str, Any]
"""Field of the run's config, by its dotted name → value."""


@dataclass(frozen=True)
class Member:
    """One run of a sweep. set: what it has of its own."""

    name: str
    set: Values
    config: RunConfig


@dataclass(frozen=True)
class Sweep:
    """A sweep as it was read. base: the run's config before anything varies, as plain data."""

    config: SweepConfig
    path: str
    base: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its name."""
        return self.config.name or str(self.base.get("name"))

    @property
    def proposes(self) -> bool:
        """Whether its runs follow from results, so that they are not known before."""
        return self.config.optuna is not None

    def base_config(self) -> RunConfig:
        """The run's config before anything varies."""
        return build_config(deepcopy(dict(self.base)), name=self.path)

    def members(self) -> list[Member]:
        """Its runs, those of a search by results left out. Raises ConfigError: all problems."""
        return self.built([] if self.proposes else _sets(self.config), where=self._where)

    def proposed(self, sets: Sequence[Values]) -> list[Member]:
        """The runs of a search by results that have been proposed so far."""
        return self.built(sets, where=lambda number: f"{self.path}: trial {number}")

    def check_ends(self) -> None:
        """Tries the ends of each distribution. Raises ConfigError where a config refuses one."""
        axes = dict(self.config.axes)
        usual = {name: _ends(values)[0] for name, values in axes.items()}
        for name, values in axes.items():
            for value in _ends(values):
                self._config({**usual, name: value}, self.name, where=f"{self.path}: vary.{name}")

    def built(self, sets: Sequence[Values], *, where: Any) -> list[Member]:
        """Each run with its name and config."""
        names = _names(self.name, sets, axes=[*(self.config.vary or ())])
        members, problems = [], []
        for number, (name, own) in enumerate(zip(names, sets, strict=True)):
            try:
                config = self._config(own, name, where=f"{where(number)} ({name})")
            except ConfigError as error:
                problems.append(str(error))
            else:
                members.append(Member(name, _without_name(own), config))
        if problems:
            raise ConfigError("\n".join(dict.fromkeys(problems)))
        return members

    def _where(self, number: int) -> str:
        return f"{self.path}: {'run' if self.config.runs is None else 'runs'}[{number}]"

    def _config(self, own: Values, name: str, *, where: str) -> RunConfig:
        data: dict[str, Any] = deepcopy(dict(self.base))
        for field, value in own.items():
            set_field(data, field, deepcopy(value), told=f"{where}: {field}")
        data["name"] = name
        return build_config(data, name=where)


def is_sweep(path: Path | str) -> bool:
    """Whether the file is a sweep's, which names a run, and not a run's. Raises ConfigError."""
    return describes_sweep(read_yaml_mapping(Path(path)))


def load_sweep(
    given: Path | str | Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    concurrency: int | None = None,
) -> Sweep:
    """The sweep in the file at that path, or of these fields, relative to the working directory.

    overrides: `a.b=value` for the config of all its runs. Raises ConfigError for everything that is
    wrong with it, its run's file among it.
    """
    if isinstance(given, Mapping):
        path, folder, data = "sweep", Path.cwd(), deepcopy(dict(given))
    else:
        path, folder = str(given), Path(given).resolve().parent
        data = read_yaml_mapping(Path(given))
    if "model" in data:
        raise ConfigError(
            f"{path}: it is the config of a run; a sweep has a file of its own, which names it "
            f"(`run: {Path(path).name}`) and says what varies: docs/sweeps.md"
        )
    data.setdefault("folder", str(folder))
    if concurrency is not None:
        data["concurrency"] = concurrency
    config = built(SweepConfig, data, name=path)
    everywhere = dict(map(parsed_override, overrides))
    return made(config.model_copy(update={"set": {**config.set, **everywhere}}), path=path)


def made(config: SweepConfig, *, path: str) -> Sweep:
    """The sweep of that config, whose run's file is read. path: how errors name the sweep."""
    file = Path(config.folder) / config.run
    base = read_yaml_mapping(file)
    if describes_sweep(base):
        raise ConfigError(f"{path}: run: {config.run} is a sweep; name the config of a run")
    base.setdefault("folder", str(file.resolve().parent))
    for name, value in config.set.items():
        set_field(base, name, deepcopy(value), told=f"{path}: set.{name}")
    build_config(deepcopy(base), name=str(file))  # before anything varies: its own mistakes, once
    sweep = Sweep(config, path, base)
    if len(sweep.name) > MAX_SWEEP_NAME:
        raise ConfigError(
            f"{path}: name: the run's name has {len(sweep.name)} characters, and the names of a "
            f"sweep's runs begin with it; give a `name` of at most {MAX_SWEEP_NAME}"
        )
    return sweep


def _ends(values: tuple[Any, ...] | Distribution) -> tuple[Any, ...]:
    return values.ends if isinstance(values, Distribution) else values


def _sets(config: SweepConfig) -> list[Values]:
    if config.runs is not None:
        return [dict(fields) for fields in config.runs]
    axes = dict(config.axes)
    if config.random is not None:
        seed = config.random.seed
        drawn = [
            {name: _drawn(values, seed, number, name) for name, values in axes.items()}
            for number in range(config.random.runs)
        ]
        return distinct(drawn)
    lists = {name: values for name, values in axes.items() if isinstance(values, tuple)}
    count = math.prod(len(values) for values in lists.values())
    if count > MAX_RUNS:
        raise ConfigError(
            f"vary: a grid of {count} runs; expected at most {MAX_RUNS}. `random: {{runs: N}}` "
            "takes some of them"
        )
    return [dict(zip(lists, one, strict=True)) for one in itertools.product(*lists.values())]


def distinct(sets: Sequence[Values]) -> list[Values]:
    """Each of them once, where it stands first."""
    return [*{digest("sweep-run", in_key(own)): own for own in reversed(sets)}.values()][::-1]


def _drawn(values: tuple[Any, ...] | Distribution, seed: int, number: int, name: str) -> Any:
    """The value of one field of one run, by the seed, its number and the field's name alone."""
    u = (seed_64("sweep", seed, number, name) >> 10) * 2.0**-53  # in [0, 1)
    distribution = values if isinstance(values, Distribution) else Distribution(choice=values)
    if distribution.bounds is None:
        choices = distribution.ends
        return choices[int(u * len(choices))]
    low, high = distribution.bounds
    if distribution.whole:  # each whole number has the room of one
        low, high = low - 0.5 * distribution.log, high + 1 - 0.5 * distribution.log
    if distribution.log:
        low, high = math.log(low), math.log(high)
    value = low + u * (high - low)
    return within(distribution, math.exp(value) if distribution.log else value)


def within(distribution: Distribution, value: float) -> float | int:
    """The value as it is written: of few digits, and within the bounds."""
    assert distribution.bounds is not None
    low, high = distribution.bounds
    if distribution.whole:
        rounded = round(value) if distribution.log else math.floor(value)
        return int(min(max(rounded, low), high))
    return min(max(float(f"{value:.{SIGNIFICANT}g}"), low), high)


def _without_name(own: Values) -> Values:
    return {field: value for field, value in own.items() if field != "name"}


# --- names ----------------------------------------------------------------------------------------


def _names(sweep: str, sets: Sequence[Values], *, axes: Sequence[str]) -> list[str]:
    """A name for each run: no two are the same. Raises ConfigError for two that are one run."""
    digests = [digest("sweep-run", in_key(_without_name(own))) for own in sets]
    shown = _telling([_without_name(own) for own in sets])
    short = _short({name for one in shown for name in one} | {*axes})
    names = [
        str(own["name"])
        if "name" in own
        else _fitting("-".join([sweep, *(_part(short, *leaf) for leaf in one.items())]), key)
        for own, one, key in zip(sets, shown, digests, strict=True)
    ]
    double = {name for name in names if names.count(name) > 1} if len({*names}) < len(names) else ()
    told: dict[str, int] = {}
    for number, (name, key) in enumerate(zip(names, digests, strict=True)):
        if name in double:
            if "name" not in sets[number]:
                names[number] = _fitting(f"{name}-{key[:8]}", key)
            if names[number] in told:
                raise ConfigError(
                    f"runs[{number}] ({names[number]}) is runs[{told[names[number]]}] once more; "
                    "leave one of them out, or give them names and values of their own"
                )
        told[names[number]] = number
    return names


def _leaves(own: Values) -> dict[str, Any]:
    """What a run has of its own, with each group of fields as the fields in it."""
    found: dict[str, Any] = {}
    for field, given in own.items():
        found |= dict(flatten(given, field)) if isinstance(given, Mapping) else {field: given}
    return found


def _telling(sets: Sequence[Values]) -> list[dict[str, Any]]:
    """The leaves of each run, without those of groups that have one value in all of them."""
    leaves = [_leaves(own) for own in sets]
    seen: dict[str, set[str]] = {}
    for one in leaves:
        for path, value in one.items():
            seen.setdefault(path, set()).add(repr(value))
    return [
        {path: value for path, value in one.items() if path in own or len(seen[path]) > 1}
        for one, own in zip(leaves, sets, strict=True)
    ]


def _short(names: Iterable[str]) -> dict[str, str]:
    """Each field's last part, or as many of its last parts as tell it from the others."""
    short: dict[str, str] = {}
    whole = {name: name.replace(".args.", ".").split(".") for name in names}
    for name, parts in whole.items():
        for count in range(1, len(parts) + 1):
            end = parts[-count:]
            if all(other == name or whole[other][-count:] != end for other in whole):
                break
        short[name] = ".".join(end)
    return short


def _part(short: Mapping[str, str], field: str, value: Any) -> str:
    name = short[field]
    if isinstance(value, bool) or value is None:
        return _plain(f"{name}-{'none' if value is None else str(value).lower()}")
    if isinstance(value, int | float):
        return _plain(f"{name}{_number(value)}")
    if isinstance(value, str):
        text = value.rpartition(":")[2] if name.rpartition(".")[2] == "target" else value
        return _plain(text if name.rpartition(".")[2] in _BARE else f"{name}-{text}")
    items = value if isinstance(value, list | tuple) else [value]
    plain = all(isinstance(item, int | float | str) for item in items)
    text = "-".join(item if isinstance(item, str) else _number(item) for item in items if plain)
    return _plain(
        f"{name}{text}" if plain else f"{name}-{digest('value', in_key({'': value}))[:6]}"
    )


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{value:.{SHOWN}g}".replace("e-0", "e-").replace("e+", "e")


def _plain(text: str) -> str:
    return _REFUSED.sub("-", text).rstrip("-")


def _fitting(name: str, key: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 9]}-{key[:8]}"
