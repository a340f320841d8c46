"""A whole run without Prefect and MLflow: the session and its stages, for sweeps of many runs."""

from pathlib import Path

from epochal.tasks.config.load import load_config
from epochal.tasks.reporting import SilentReporter
from epochal.tasks.running.runner import run_stage
from epochal.tasks.runs.summary import weights_sha256
from epochal.tasks.session.session import open_session


class NoLedger:
    """Takes what is delivered and keeps the parts."""

    def __init__(self):
        self.parts = []

    def deliver(self, kind, epoch, record):
        pass

    def deliver_part(self, part):
        self.parts.append(part)


class Notices(SilentReporter):
    """Keeps what a person would be told."""

    def __init__(self):
        self.texts = []

    def notice(self, text):
        self.texts.append(text)


class BareRun:
    """One try at all stages of a config. notices: what it said meanwhile."""

    def __init__(self, config: Path, **sets):
        overrides = [f"{name.replace('__', '.')}={value}" for name, value in sets.items()]
        reporter = Notices()
        self.notices = reporter.texts
        self.session = open_session(load_config(config, overrides=overrides), reporter=reporter)
        self.session.tracker = NoLedger()

    def __call__(self):
        for stage in self.session.stages:
            if stage in self.session.needed:
                run_stage(self.session, stage.kind, stage.epoch)
        return self

    @property
    def weights(self):
        return weights_sha256(self.session.needed, self.session.records)

    @property
    def digests(self):
        """(stage, epoch, artifact) → sha256 of all that was made."""
        return {
            (record.stage, record.epoch, name): artifact.sha256
            for record in self.session.records.values()
            for name, artifact in record.artifacts.items()
        }

    @property
    def resumed(self):
        """(stage, epoch) → micro-step of the stages that went on from a commit inside them."""
        return {
            (one.stage.kind, one.stage.epoch): one.resumed_at
            for one in self.session.outcomes
            if one.resumed_at is not None
        }
