"""The flow: a run as a chain of stages. Composes tasks, nothing else.

Annotations are no texts here: a process that serves the flow sends the function to another one,
where Prefect could not find what a text means.
"""

from functools import partial
from typing import Any

from prefect.flows import flow

from epochal.flows.flow_run.artifacts import shown_in_prefect
from epochal.flows.flow_run.cancellation import steered
from epochal.flows.flow_run.dead_runs import noting_process
from epochal.flows.flow_run.deployed_code import check_against_deployment
from epochal.flows.flow_run.imports import import_mlflow_beside
from epochal.flows.flow_run.liveness import beating, ending_with_runner, working_place
from epochal.flows.flow_run.log import logging_to_prefect
from epochal.flows.flow_run.naming import first_name, name_opened
from epochal.flows.flow_run.spikes import telling_of_spikes
from epochal.flows.servers import local_mlflow_uri
from epochal.tasks.config.parts import SweepPart
from epochal.tasks.config.run import RunConfig
from epochal.tasks.running.lifecycle import active_run
from epochal.tasks.running.prefect_tasks import StageRef, run_stage_task


@flow(name="train", flow_run_name=first_name)
def train(config: RunConfig, part: SweepPart | None = None) -> dict[str, Any]:
    """Trains a model; every epoch is a stage that is done once.

    Args:
        config: The whole run. What the store already has of it is not computed again.
        part: What a sweep asks of it, where it is one of a sweep's runs.
    """
    check_against_deployment(config)
    local_mlflow = local_mlflow_uri()
    with (
        working_place(config),
        ending_with_runner(),
        noting_process(),
        steered(),
        beating(),
        logging_to_prefect() as log,
        active_run(
            config,
            local_mlflow=local_mlflow,
            part=part,
            meanwhile=partial(import_mlflow_beside, config, local_mlflow=local_mlflow),
        ) as active,
    ):
        name_opened(active.run)
        with shown_in_prefect(active.run, log), telling_of_spikes(active.run, log):
            done: dict[str, StageRef] = {}
            for stage in active.run.stages():
                done[stage.known_key] = run_stage_task(stage, done)
    return active.result()
