"""The flow: a run as a chain of stages. Composes tasks, nothing else.

Annotations are no texts here: a process that serves the flow sends the function to another one,
where Prefect could not find what a text means.
"""

from typing import Any

from prefect.flows import flow

from epochal.flows.flow_run.cancellation import cancellable
from epochal.flows.flow_run.dead_runs import noting_process
from epochal.flows.flow_run.liveness import beating, ending_with_runner, working_place
from epochal.flows.flow_run.log import logging_to_prefect
from epochal.flows.servers import local_mlflow_uri
from epochal.tasks.config.run import RunConfig
from epochal.tasks.running.lifecycle import active_run
from epochal.tasks.running.prefect_tasks import (
    average,
    initialise,
    mine_epoch,
    score_epoch,
    train_epoch,
    validate_average,
    validate_epoch,
)


@flow(name="train", flow_run_name="{config.name}")
def train(config: RunConfig) -> dict[str, Any]:
    """Trains a model; every epoch is a stage that is done once.

    Args:
        config: The whole run. What the store already has of it is not computed again.
    """
    with (
        working_place(config),
        ending_with_runner(),
        noting_process(),
        cancellable(),
        beating(),
        logging_to_prefect(),
        active_run(config, local_mlflow=local_mlflow_uri()) as run,
    ):
        checkpoint = initialise()
        table = None
        for epoch in run.epochs:
            checkpoint = train_epoch(epoch, checkpoint, table)
            validate_epoch(epoch, checkpoint)
            if config.sampling.policy != "none":
                scored = config.sampling.scores_after(epoch, epochs=config.epochs)
                scores = score_epoch(epoch, checkpoint) if scored is not None else None
                table = mine_epoch(epoch, checkpoint, table, scores)
            if run.ends_with(epoch):
                break
        if config.averaging is not None:
            validate_average(average(checkpoint))
    return run.result()
