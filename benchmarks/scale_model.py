"""An epoch's seconds on paper: what each part of it takes with any number of processes.

    python benchmarks/scale_model.py measure      # constants of this machine, into results/
    python benchmarks/scale_model.py show         # the table of docs/scale.md
    python benchmarks/scale_model.py draw         # its picture

The constants of this machine are fitted to one and two processes (`scale_measure.py`); what three
and four take was measured beside it and is compared. Everything of GPUs is from data sheets, or
assumed: `SCENARIOS` says which. An update's batch is part of the result, so it stays as it is when
processes are added, and each has less of it. Reading and decoding of items is not in it.
"""

from __future__ import annotations

import io
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from epochal.engine.shards.deal import shard_ends, shards_of
from epochal.engine.shards.group import PIECE, subtrees

ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "benchmarks/results/scale.json"
PICTURE = ROOT / "docs/scale.svg"

FLOAT, ROW, NUMBER = 4, 41, 16  # bytes: of a weight, of a row of observations, of a share of a loss
SHORT = 4096  # bytes that a small message takes along (engine/shards/exchange.py)
BEGINS = 0.1  # share of an epoch from which a part hurts

# docs/performance.md: 995 MB of state, 1.28 M samples, two quiet cores
COPY_S, BESIDE_S, WRITE_S = (seconds / 995e6 for seconds in (0.080, 0.50, 0.98))
MINE_S = (0.088 + 0.053 + 0.069 + 0.104 + 0.188 + 0.043) / 1.28e6
# The Llama 3 Herd of Models, section 3.3.4: 419 in 54 days of 16,384 GPUs
BETWEEN_DEATHS_S = 54 * 86400 * 16384 / 419


@dataclass(frozen=True)
class Machine:
    """Seconds of what processes do.

    message_s: a small message to another process. exchange_s: what a gathering of small documents
    takes beside its messages. transfer_s: a message of the ordered sum, beside its bytes.
    bytes_per_s: of a process's link; where `one_link`, of all of them together. add_s: adding or
    copying a number of a sum. optimizer_s: the step, a weight. row_s: a row of observations on the
    first process. crowding: by how much a step is slower for each further core at work. cores:
    processes that compute at once; none: all. beside_s: a byte that is written beside the training.
    """

    message_s: float
    exchange_s: float
    transfer_s: float
    bytes_per_s: float
    add_s: float
    optimizer_s: float
    row_s: float
    orchestration_s: float
    start_s: float
    crowding: float = 0.0
    cores: int | None = None
    one_link: bool = False
    beside_s: float = 0.0

    def link(self, processes: int) -> float:
        """Bytes a second of one of so many processes."""
        return self.bytes_per_s / (processes if self.one_link else 1)

    def turns(self, processes: int) -> float:
        """How often a process waits for its turn, where there are more of them than cores."""
        return 1.0 if self.cores is None else max(1.0, processes / self.cores)

    def slower(self, processes: int) -> float:
        """How many times as long a computation takes where all processes have one."""
        if self.cores is None:
            return 1.0
        busy = min(processes, self.cores)
        return (1 + self.crowding * (busy - 1)) * self.turns(processes)


@dataclass(frozen=True)
class Job:
    """What is trained.

    batch: samples of a micro-batch; accumulate: micro-batches of an update. sample_s, forward_s: a
    sample's forward and backward pass, and forward alone. collected: numbers that a micro-batch
    leaves for running statistics. outputs: bytes of a validation sample's outputs, loss and target.
    state: tensors of the weights' size in a checkpoint.
    """

    samples: int
    validation: int
    weights: int
    batch: int
    accumulate: int
    shards: int
    sample_s: float
    forward_s: float
    collected: int = 0
    outputs: int = 64
    state: int = 3
    commit_every_s: float = 60.0

    @property
    def updates(self) -> int:
        """Of an epoch."""
        return math.ceil(self.samples / (self.batch * self.accumulate))


@dataclass(frozen=True)
class Scenario:
    """A job on machines. told: what it is, for a person."""

    name: str
    job: Job
    machine: Machine
    processes: int
    told: str


def sum_s(machine: Machine, weights: int, shards: int, processes: int) -> float:
    """The ordered sum of one update, in `engine/shards/group.py`."""
    if processes == 1:
        return 0.0
    nodes = [
        len(subtrees(shards_of(rank, processes=processes, shards=shards)))
        for rank in range(processes)
    ]
    pieces, others = math.ceil(weights / PIECE), processes - 1
    messages = pieces * others * (max(nodes) + 1)
    received = weights * FLOAT * ((sum(nodes) - min(nodes)) + others) / processes
    added = weights * (max(nodes) + sum(nodes) / processes)  # made flat, and added
    transfer = received / machine.link(processes)
    return messages * machine.transfer_s + transfer + added * machine.add_s


def gather_s(machine: Machine, processes: int, length: float = 0.0) -> float:
    """What small documents, and `length` bytes of tensors of each process, take to all others."""
    if processes == 1:
        return 0.0
    message = machine.message_s * machine.turns(processes)
    found = machine.exchange_s * machine.turns(processes) + (processes - 1) * message
    if length > SHORT:
        found += (processes - 1) * (message + length / machine.link(processes))
    return found


def told_s(machine: Machine, processes: int) -> float:
    """A number that the first process gives to all others."""
    return math.ceil(math.log2(processes)) * machine.message_s * machine.turns(processes)


def most_micro_batches(job: Job, processes: int) -> int:
    """Micro-batches of an update that the busiest process has."""
    ends = [0, *shard_ends(job.accumulate, job.shards)]
    shards = [shards_of(rank, processes=processes, shards=job.shards) for rank in range(processes)]
    return max(ends[own.stop] - ends[own.start] for own in shards)


def training(job: Job, machine: Machine, processes: int) -> dict[str, float]:
    """Seconds of the parts of an epoch's training loop."""
    most, updates = most_micro_batches(job, processes), job.updates
    slower = machine.slower(processes)
    beside = most * FLOAT * job.collected + 2 * most * NUMBER
    each = gather_s(machine, processes, beside) + told_s(machine, processes)
    step = job.sample_s * job.samples * most / job.accumulate
    sent = job.samples * ROW * (processes - 1) / processes / machine.bytes_per_s
    return {
        "step": step * slower,
        "optimizer": updates * job.weights * machine.optimizer_s * slower,
        "ordered sum": updates * sum_s(machine, job.weights, job.shards, processes),
        "small messages": updates * each,
        "observations": sent + job.samples * machine.row_s if processes > 1 else 0.0,
    }


def validation_s(job: Job, machine: Machine, processes: int) -> float:
    """The validation: a batch of each process, then its outputs to the first one."""
    batches = math.ceil(job.validation / job.batch)
    rounds = math.ceil(batches / processes)
    sent = job.validation * job.outputs * (processes - 1) / processes / machine.bytes_per_s
    computed = rounds * min(job.batch, job.validation) * job.forward_s * machine.slower(processes)
    return computed + rounds * gather_s(machine, processes) + sent


def parts(job: Job, machine: Machine, processes: int) -> dict[str, float]:
    """Seconds of all parts of an epoch."""
    found = training(job, machine, processes)
    state = job.weights * FLOAT * job.state
    commits = sum(found.values()) / job.commit_every_s
    found["commits"] = state * (commits * (COPY_S + machine.beside_s) + COPY_S + WRITE_S)
    found["validation"] = validation_s(job, machine, processes)
    found["mining"] = job.samples * MINE_S
    found["orchestration"] = machine.orchestration_s
    lost = machine.start_s + job.commit_every_s / 2
    found["deaths"] = sum(found.values()) * processes / BETWEEN_DEATHS_S * lost
    return found


def begins(job: Job, machine: Machine, part: str) -> int | None:
    """The fewest processes with which a part takes a tenth of an epoch; None: none does."""
    for processes in range(1, job.shards + 1):
        found = parts(job, machine, processes)
        if found[part] >= BEGINS * sum(found.values()):
            return processes
    return None


def here(measured: Mapping[str, Any]) -> Machine:
    """The machine that was measured."""
    return Machine(**measured["constants"], one_link=True, beside_s=BESIDE_S)


def scenarios(measured: Mapping[str, Any]) -> list[Scenario]:
    """Those of the page."""
    own = here(measured)
    a100 = replace(
        own,
        message_s=50e-6,  # assumed: TCP between two machines of a data centre
        transfer_s=10e-6,  # assumed: a message of NCCL
        bytes_per_s=25e9,
        add_s=12 / 2039e9,  # data sheet of the A100 80 GB: bytes a second of its memory
        optimizer_s=28 / 2039e9,
        crowding=0.0,
        cores=None,
        one_link=False,
        beside_s=0.0,
    )
    # 2,470 images/s on one A100 80 GB, batches of 256, mixed precision: what NVIDIA measured
    # (DeepLearningExamples, ResNet50 v1.5 for PyTorch)
    resnet = Job(
        samples=1_281_167,
        validation=50_000,
        weights=25_557_032,
        batch=256,
        accumulate=16,
        shards=16,
        sample_s=1 / 2470,
        forward_s=1 / 2470 / 3,
        collected=2 * 26_560,
        outputs=4 * 1000 + 12,
        state=2,
    )
    # ViT-L/16: 24 layers of width 1024 on 197 tokens are 61.6 G multiply-adds an image; three times
    # that for a step, at 40 % (assumed) of 312 TFLOPS (data sheet of the A100)
    vit = Job(
        samples=1_281_167,
        validation=50_000,
        weights=304_326_632,
        batch=32,
        accumulate=128,
        shards=128,
        sample_s=6 * 61.6e9 / (0.4 * 312e12),
        forward_s=2 * 61.6e9 / (0.4 * 312e12),
        outputs=4 * 1000 + 12,
    )
    told = measured["job"]
    cnn = Job(**told | {"samples": 50_000, "validation": 10_000, "batch": 64})
    return [
        Scenario(
            "ResNet-50",
            resnet,
            a100,
            8,
            "ImageNet-1k, A100s with a line of 25 GB/s each",
        ),
        Scenario(
            "ViT, 304 M",
            vit,
            replace(a100, bytes_per_s=12.5e9),
            64,
            "ImageNet-1k, A100s with a line of 100 Gbit/s each",
        ),
        Scenario(
            "ViT, one line for 8",
            vit,
            replace(a100, bytes_per_s=12.5e9 / 8),
            64,
            "the same, 8 A100s on one line of 100 Gbit/s",
        ),
        Scenario(
            f"CNN, {told['weights'] / 1e6:.1f} M",
            cnn,
            own,
            2,
            "50,000 images of 28 × 28, two cores of an AMD EPYC",
        ),
    ]


def seconds(number: float) -> str:
    """For a person."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def page(measured: Mapping[str, Any]) -> str:
    """The tables of docs/scale.md."""
    found = scenarios(measured)
    lines = [
        "| scenario | processes of shards | an epoch | of one process | so many times as fast |",
        "|---|--:|--:|--:|--:|",
    ]
    shares: dict[str, list[str]] = {}
    for one in found:
        job, machine, processes = one.job, one.machine, one.processes
        took, alone = parts(job, machine, processes), sum(parts(job, machine, 1).values())
        total = sum(took.values())
        lines.append(
            f"| **{one.name}**: {one.told} | {processes} of {job.shards} | {seconds(total)} s "
            f"| {seconds(alone)} s | {alone / total:.1f} |"
        )
        for part, of_part in took.items():
            first = begins(job, machine, part)
            shares.setdefault(part, []).append(
                f"{of_part / total:.1%}" + (f" · {first}" if first else "")
            )
    lines += [
        "",
        f"| part | {' | '.join(one.name for one in found)} |",
        f"|---|{'--:|' * len(found)}",
        *(f"| {part} | {' | '.join(cells)} |" for part, cells in shares.items()),
    ]
    return "\n".join([*lines, "", *_checked(measured)])


def _checked(measured: Mapping[str, Any]) -> list[str]:
    """What the model says of times that it was not fitted to, over what was measured."""
    ratios: dict[str, dict[int, float]] = {what: {} for what in NAMES}
    for one in measured["checks"]:
        ratios[one["what"]][one["processes"]] = one["ratio"]
    counts = sorted({one["processes"] for one in measured["checks"]})
    before, after = measured["load"]
    heads = [f"predicted / measured, {measured['commit']}, load {before} to {after}"]
    heads += [f"P = {count}" for count in counts]
    return [
        f"| {' | '.join(heads)} |",
        f"|---|{'--:|' * len(counts)}",
        *(
            f"| {NAMES[what]} | {' | '.join(_ratio(found.get(count)) for count in counts)} |"
            for what, found in ratios.items()
        ),
    ]


NAMES = {
    "train": "three updates of training, whole",
    "validate": "a validation, whole",
    "many": "an ordered sum of 8 M numbers",
    "few": "an ordered sum of 4,096 numbers",
    "observations": "400,000 observations gathered",
    "message": "a small message to all",
    "gather": "documents of all to all",
    "gather and told": "the same, and a decision of the first",
}
"""Of what is timed, for a person."""


def _ratio(number: float | None) -> str:
    return "fitted" if number is None else f"{number:.2f}"


def read() -> dict[str, Any]:
    """What was measured."""
    found: dict[str, Any] = json.loads(MEASURED.read_text())
    return found


def draw(measured: Mapping[str, Any], path: Path) -> None:
    """For each scenario the share of each part, by the number of processes."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    from epochal.tasks.report.figures import LIGHT

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "scale", "font.size": 8}):
        figure = Figure(figsize=(9.0, 5.6), layout="constrained", facecolor=LIGHT.paper)
        FigureCanvasSVG(figure)
        panels = figure.subplots(2, 2).flatten()
        for panel, one in zip(panels, scenarios(measured), strict=True):
            counts = [1 << power for power in range(one.job.shards.bit_length())]
            found = [parts(one.job, one.machine, count) for count in counts]
            shares = {
                part: [100 * of[part] / sum(of.values()) for of in found] for part in found[0]
            }
            colours = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]  # a ListedColormap
            panel.stackplot(counts, *shares.values(), labels=list(shares), colors=colours, lw=0)
            panel.set_xscale("log", base=2)
            panel.set_xticks(counts, [str(count) for count in counts])
            panel.set_xticks([], minor=True)
            panel.set_yticks([0, 50, 100])
            panel.set_xlim(1, counts[-1])
            panel.set_ylim(0, 100)
            panel.set_title(one.name, fontsize=8)
            panel.set_xlabel("processes")
            panel.set_ylabel("% of an epoch")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    path.write_text(re.sub(r"(\.\d)\d+", r"\1", drawn.getvalue()).replace(" \n", " "))


def main(words: Sequence[str]) -> None:
    """The mode that the command line names."""
    match list(words):
        case ["measure"]:
            from scale_measure import measure

            measured = measure()
            MEASURED.write_text(json.dumps(measured, indent=1) + "\n")
            print(json.dumps(measured, indent=1))
        case ["show"]:
            print(page(read()))
        case ["draw"]:
            draw(read(), PICTURE)
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
