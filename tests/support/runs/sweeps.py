"""A sweep of a small project, without Prefect and MLflow: trained, or with made-up results."""

import yaml
from support.runs.project import CONFIG, Project

from epochal.data.hashing import digest
from epochal.data.stage_store.records import StageRecord
from epochal.tasks.goodput.totals import GOODPUT, Totals
from epochal.tasks.running.open import open_run
from epochal.tasks.stages.registry import KINDS
from epochal.tasks.sweeps.members import load_sweep
from epochal.tasks.sweeps.work import Failure, SweepWork

TRUNK = {"kind": "warmup_stable_decay", "warmup": 1, "decay": 1}
"""The last epoch decays, and those before it do not know by how much."""
KNOWN = {name: {**CONFIG[name], "version": "1"} for name in ("train_data", "validation_data")}
"""Data that need not be read to know the keys."""


class SweepProject(Project):
    """A project with a sweep beside its run."""

    def __init__(self, folder, *, run=None, **sweep):
        usual = {"epochs": 3, "schedule": TRUNK, "sampling": {"policy": "none"}}
        super().__init__(folder, **{**usual, **(run or {})})
        self.sweep = folder / "sweep.yaml"
        self.sweep.write_text(yaml.safe_dump({"run": "run.yaml", **sweep}, sort_keys=False))

    def work(self, **sets):
        overrides = [f"{name.replace('__', '.')}={value}" for name, value in sets.items()]
        return SweepWork.prepared(load_sweep(self.sweep, overrides=overrides))


def worked(work, do, *, most=1000):
    """Has `do(work, job)` work on at most so many jobs; gives (run, until) of each, in order."""
    jobs = []
    while len(jobs) < most:
        job = work.next_job()
        if job is None:
            if not work.propose():
                break
            continue
        jobs.append((job.name, job.until))
        do(work, job)
    return jobs


def trained(work, job):
    """Trains in this process."""
    run = open_run(job.config)
    work.opened(job.name)
    run.until = job.until
    for stage in run.stages():
        outcome = run.run_stage(stage)
        work.ended_stage(job.name, stage.key, cached=outcome.cached, kind=stage.kind)
    run.close()
    work.ended(job.name)


def made_up(measure, *, fails=lambda job: False, seconds=2.0):
    """What works on a job by writing made-up records. measure: (config, epoch) → accuracy.

    fails: whether the first epoch of a job that is not done fails.
    """

    def do(work, job):
        for stage in work.tree.runs[job.name].missing(job.until):
            if stage.kind == "train" and fails(job):
                work.ended(job.name, failure=Failure("it explodes", 3, stage.key))
                return
            write(work.tree.stage_store, stage, measure(job.config, stage.epoch), seconds)
            work.ended_stage(job.name, stage.key, cached=False, kind=stage.kind)
        work.ended(job.name)

    return do


def write(stages, stage, value, seconds):
    """A record of the stage, as it would be but for the numbers."""
    kind = KINDS[stage.kind]
    done = {"samples": 1, "updates_done": (stage.epoch or 0) + 1}
    values = {
        "initialise": {"parameters": 1},
        "validate": {**done, "metrics": {"accuracy": value, "loss": 1.0}},
        "train": {**done, "updates": 1, "loss": 1.0, "accuracy": 0.5, "gradient_norm": 1.0},
    }[stage.kind]
    artifacts = {
        name: stages.put_artifact(stage.key, suffix, f"{name} {stage.key}".encode())
        for name, suffix in kind.artifacts.items()
    }
    stages.put_side_file(stage.key, GOODPUT, Totals({"forward_backward": seconds}).body())
    environment = {"device": "cpu"}
    stages.commit(
        StageRecord(
            stage=stage.kind,
            epoch=stage.epoch,
            key=stage.key,
            inputs={},
            environment=environment,
            environment_digest=digest("e", environment),
            consumed={},
            artifacts=artifacts,
            values=values,
        )
    )
