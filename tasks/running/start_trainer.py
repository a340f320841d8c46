"""Which trainer a run has, by its config."""

from __future__ import annotations

from epochal.data.store.store import Store
from epochal.tasks.config.run import RunConfig
from epochal.tasks.reporting import Reporter
from epochal.tasks.trainer.interruption import Interruption
from epochal.tasks.trainer.trainer import Trainer

INLINE = (
    "launch.kind: inline computes in this process, where threads of Prefect, MLflow and the store "
    "draw from the same `random` as your code does"
)


def start_trainer(
    config: RunConfig, store: Store, reporter: Reporter, interruption: Interruption
) -> Trainer:
    """Starts it; it begins to work when it is asked. Raises ConfigError if it cannot be started."""
    if config.launch.kind == "inline":
        from epochal.tasks.launch.inline import InlineTrainer

        return InlineTrainer(config, store, reporter, interruption)
    if config.launch.joined:
        from epochal.tasks.joining.trainer import JoinedTrainer, check_engine

        check_engine(config.launch.kind)
        return JoinedTrainer(config, store, reporter, interruption)
    from epochal.tasks.launch.local import LocalTrainer

    return LocalTrainer(config, store, reporter, interruption)
