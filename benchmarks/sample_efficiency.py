"""What policies save and cost, against full training and honest controls, in paired seeds.

    python benchmarks/sample_efficiency.py --data FOLDER --runs runs.jsonl --out results.json

FOLDER holds Fashion-MNIST in IDX files. Every finished run is a line of `--runs`; the same command
goes on from there, and two of them, `--part 1/2` and `--part 2/2`, share the seeds. `--minutes`
ends it before a run that would begin later.

`random:X` draws as many samples as X kept in each epoch, at weights of mean one as X's, and
`random_drop:X` leaves out suspects of wrong labels too; `shorter:X` is full training on a schedule
of X's budget. All need X's run of the same seed, and do it first.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from efficiency_runs import train_once
from efficiency_sets import SETS, TaskSet, load_set
from scipy.stats import t as student

from epochal.data.config.loader import SamplingConfig

ARMS: dict[str, dict[str, Any]] = {
    "full": {"policy": "none"},
    "easy_skip": {"policy": "easy_skip"},
    "easy_skip_final_1": {"policy": "easy_skip", "final_full": 1},
    "easy_skip_final_2": {"policy": "easy_skip", "final_full": 2},
    "easy_skip_sqrt": {"policy": "easy_skip", "batch": "sqrt"},
    "easy_skip_drop": {"policy": "easy_skip", "label_noise": "drop"},
    "importance": {"policy": "importance"},
    "importance_85_30": {"policy": "importance", "budget": 0.85, "budget_end": 0.3},
    "importance_85_30_weighted": {
        "policy": "importance", "budget": 0.85, "budget_end": 0.3, "max_weight": 4.0,
    },
    "importance_85_30_fixed": {
        "policy": "importance", "budget": 0.85, "budget_end": 0.3, "batch": "fixed",
    },
    "importance_flat_50": {"policy": "importance", "budget": 0.5},
    "importance_flat_55_45": {"policy": "importance", "budget": 0.55, "budget_end": 0.45},
    "importance_75_25": {"policy": "importance", "budget": 0.75, "budget_end": 0.25},
    "importance_46_drop": {"policy": "importance", "budget": 0.46, "label_noise": "drop"},
    "importance_drop": {"policy": "importance", "label_noise": "drop"},
    "importance_trusted_drop": {
        "policy": "importance", "score": "trusted_el2n", "label_noise": "drop",
    },
    "importance_trusted_46_drop": {
        "policy": "importance", "score": "trusted_el2n", "budget": 0.46, "label_noise": "drop",
    },
    "importance_75_25_drop": {
        "policy": "importance", "budget": 0.75, "budget_end": 0.25, "label_noise": "drop",
    },
    "full_drop": {"policy": "random", "budget": 1.0, "label_noise": "drop"},
    "infobatch": {"policy": "infobatch"},
    "kakurenbo": {"policy": "kakurenbo"},
    "cvnets": {"policy": "cvnets"},
    "seta": {"policy": "seta"},
    "hard_mining": {"policy": "hard_mining"},
    "selective_backprop": {"policy": "selective_backprop"},
    "curriculum": {"policy": "curriculum"},
}  # fmt: skip
DEFAULT = (
    "full,easy_skip,random:easy_skip,shorter:easy_skip,importance,random:importance,"
    "shorter:importance,importance_drop,random:importance_drop,shorter:importance_drop"
)
VERSION = 2
"""Raised when sets, models, recipes or a policy's defaults change: older lines count no more."""


class Runs:
    """The finished runs of a JSONL file: (set, arm, seed) → what it gave."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.found: dict[tuple[str, str, int], dict[str, Any]] = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            one = json.loads(line)
            if one["version"] == VERSION and one["settings"] == settings_of(one["arm"]):
                self.found[one["set"], one["arm"], one["seed"]] = one

    def add(self, one: dict[str, Any]) -> None:
        """Notes a finished run."""
        self.found[one["set"], one["arm"], one["seed"]] = one
        with self._path.open("a") as stream:  # one short write: two processes may append
            stream.write(json.dumps(one) + "\n")


def settings_of(arm: str) -> dict[str, Any]:
    """The settings of an arm, or of the one that it is the control of."""
    name = arm.rpartition(":")[2]
    if name not in ARMS:
        raise SystemExit(
            f"--policies: found {arm!r}; expected {', '.join(ARMS)}, random:…, shorter:…"
        )
    return ARMS[name]


def do(runs: Runs, task: TaskSet, name: str, arm: str, seed: int) -> dict[str, Any]:
    """The run of that arm and seed, trained unless it is in the file."""
    if (name, arm, seed) in runs.found:
        return runs.found[name, arm, seed]
    kind, _, base = arm.rpartition(":")
    config, length = SamplingConfig.model_validate(settings_of(arm)), None
    if kind:
        measured = do(runs, task, name, base, seed)
        if kind in {"random", "random_drop"}:
            config = SamplingConfig(
                policy="random",
                shares=tuple(measured["kept"]),
                batch=config.batch_rule,
                warm_up=0,
                label_noise="drop" if kind == "random_drop" else "keep",
            )
        elif kind == "shorter":
            config, length = SamplingConfig(), sum(measured["kept"])
        else:
            raise SystemExit(
                f"--policies: found {arm!r}; expected random:, random_drop: or shorter:"
            )
    begun = time.perf_counter()
    result = train_once(task, config, seed=seed, length=length)
    one = {
        "version": VERSION, "set": name, "arm": arm, "seed": seed, "settings": settings_of(arm),
        "wall_s": round(time.perf_counter() - begun, 2), **result.record,
    }  # fmt: skip
    runs.add(one)
    print(
        f"{name} {arm} seed {seed}: {result.accuracy:.4f}, {result.gradients} gradients, "
        f"{result.updates} updates, {result.cpu_s:.1f} s",
        flush=True,
    )
    return one


def paired(one: dict[int, float], other: dict[int, float]) -> dict[str, float | int] | None:
    """Mean difference in points over common seeds, standard error, one-sided 95 % lower bound."""
    gaps = [100 * (one[seed] - other[seed]) for seed in sorted(set(one) & set(other))]
    if not gaps:
        return None
    found: dict[str, float | int] = {"seeds": len(gaps), "mean": statistics.mean(gaps)}
    if len(gaps) > 1:
        found["se"] = statistics.stdev(gaps) / len(gaps) ** 0.5
        found["lower_95"] = found["mean"] - float(student.ppf(0.95, len(gaps) - 1)) * found["se"]
    return found


def summary(runs: Runs) -> list[dict[str, Any]]:
    """A row for each set and arm: costs in percent of full training, and differences."""
    grouped: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for (name, arm, seed), one in sorted(runs.found.items()):
        grouped.setdefault((name, arm), {})[seed] = one
    rows = []
    for (name, arm), by_seed in grouped.items():
        full = grouped.get((name, "full"), {})
        common = sorted(set(by_seed) & set(full))
        accuracy = {seed: one["accuracy"] for seed, one in by_seed.items()}
        row: dict[str, Any] = {
            "set": name, "arm": arm, "seeds": len(by_seed),
            "accuracy": 100 * statistics.mean(accuracy.values()),
            "extra_forwards": statistics.mean(one["extra_forwards"] for one in by_seed.values()),
            "cpu_s": statistics.mean(one["cpu_s"] for one in by_seed.values()),
        }  # fmt: skip
        for cost in ("gradients", "updates", "cpu_s"):
            if common:
                spent, of = (sum(g[s][cost] for s in common) for g in (by_seed, full))
                row[f"{cost}_percent"] = 100 * spent / of
        for key, other in (
            ("full", "full"), ("random", f"random:{arm}"), ("shorter", f"shorter:{arm}"),
        ):  # fmt: skip
            others = grouped.get((name, other), {})
            row[f"against_{key}"] = paired(accuracy, {s: o["accuracy"] for s, o in others.items()})
        for measured in ("label_noise", "precision"):
            known = [one[measured] for one in by_seed.values() if one[measured] is not None]
            row[measured] = statistics.mean(known) if known else None
        rows.append(row)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    def gap(found: dict[str, float] | None) -> str:
        if found is None:
            return ""
        if "se" not in found:
            return f"{found['mean']:+.2f}"
        return f"{found['mean']:+.2f}±{found['se']:.2f} (≥{found['lower_95']:+.2f})"

    print("| set | arm | seeds | gradients % | updates % | CPU % | accuracy | Δ full | Δ random | "
          "Δ shorter |")  # fmt: skip
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for row in rows:
        costs = [row.get(f"{one}_percent") for one in ("gradients", "updates", "cpu_s")]
        cells = [row["set"], row["arm"], str(row["seeds"])]
        cells += ["" if cost is None else f"{cost:.1f}" for cost in costs]
        cells += [f"{row['accuracy']:.2f}"]
        cells += [gap(row[f"against_{one}"]) for one in ("full", "random", "shorter")]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with Fashion-MNIST's IDX files")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--policies", default=DEFAULT)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--runs", type=Path, default=Path("sample_efficiency.jsonl"))
    parser.add_argument("--out", type=Path, help="where the summary goes, as JSON")
    parser.add_argument("--part", default="1/1", help="I/N: every N-th seed, from the I-th")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    part, parts = map(int, options.part.split("/"))
    names, arms = options.sets.split(","), options.policies.split(",")
    if unknown := [one for one in names if one not in SETS]:
        raise SystemExit(f"--sets: found {', '.join(unknown)}; expected {', '.join(SETS)}")
    for arm in arms:
        settings_of(arm)
    runs, begun = Runs(options.runs), time.monotonic()
    for name in names:
        wanted = [
            (arm, seed)
            for seed in range(part - 1, options.seeds, parts)
            for arm in arms
            if (name, arm, seed) not in runs.found
        ]
        task = load_set(name, options.data) if wanted else None
        for arm, seed in wanted:
            if time.monotonic() - begun > 60 * options.minutes:
                print("out of time: the same command goes on", file=sys.stderr)
                sys.exit(75)
            assert task is not None
            do(runs, task, name, arm, seed)
    rows = summary(Runs(options.runs))
    show(rows)
    if options.out is not None:
        about = {"machine": platform.machine(), "torch": torch.__version__, "threads": 1}
        options.out.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
