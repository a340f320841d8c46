"""The flow: a run as a chain of stages. Composes tasks, nothing else.

Annotations are no texts here: a process that serves the flow sends the function to another one,
where Prefect could not find what a text means.
"""

from functools import partial
from typing import Any

from prefect.flows import flow

from epochal.flows.flow_run.cancellation import cancellable
from epochal.flows.flow_run.dead_runs import noting_process
from epochal.flows.flow_run.deployed_code import check_against_deployment
from epochal.flows.flow_run.imports import import_mlflow_beside
from epochal.flows.flow_run.liveness import beating, ending_with_runner, working_place
from epochal.flows.flow_run.log import logging_to_prefect
from epochal.flows.servers import local_mlflow_uri
from epochal.tasks.config.run import RunConfig
from epochal.tasks.running.lifecycle import active_run
from epochal.tasks.running.prefect_tasks import StageRef, run_stage_task


@flow(name="train", flow_run_name="{config.name}")
def train(config: RunConfig) -> dict[str, Any]:
    """Trains a model; every epoch is a stage that is done once.

    Args:
        config: The whole run. What the store already has of it is not computed again.
    """
    check_against_deployment(config)
    local_mlflow = local_mlflow_uri()
    with (
        working_place(config),
        ending_with_runner(),
        noting_process(),
        cancellable(),
        beating(),
        logging_to_prefect(),
        active_run(
            config,
            local_mlflow=local_mlflow,
            meanwhile=partial(import_mlflow_beside, config, local_mlflow=local_mlflow),
        ) as active,
    ):
        done: dict[str, StageRef] = {}
        for stage in active.run.stages():
            done[stage.known_key] = run_stage_task(stage, done)
    return active.result()
