"""Configs and facts made by hand, and the keys that follow from them."""

from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.stage import DatasetFacts, RunInputs
from epochal.tasks.stages.registry import list_stages

BASE = {
    "name": "run",
    "seed": 7,
    "epochs": 8,
    "folder": "/project",
    "model": {"target": "model:Net", "args": {"width": 8}},
    "train_data": {"target": "data:train"},
    "validation_data": {"target": "data:validation"},
    "optimizer": {"target": "torch.optim:SGD", "args": {"lr": 0.1}},
    "schedule": {"kind": "multi_step", "milestones": [5], "factor": 0.1},
    "loader": {"batch_size": 32},
    "sampling": {"policy": "easy_skip", "final_full": 2},
}


FACTS = RunInputs(
    sources={"model": {"model.py": "a" * 64}, "train_data": {"data.py": "b" * 64}},
    train_data=DatasetFacts("c" * 64),
    validation_data=DatasetFacts("d" * 64),
)


def config(**changes):
    data = {**BASE}
    for path, value in changes.items():
        *groups, name = path.split("__")
        node = data
        for group in groups:
            node[group] = {**node.get(group, {})}
            node = node[group]
        node[name] = value
    return RunConfig.model_validate(data)


def keys(run_inputs=FACTS, **changes):
    return {(one.kind, one.epoch): one.key for one in list_stages(config(**changes), run_inputs)}


def changed(run_inputs=FACTS, **changes):
    """The stages of the base run whose keys differ."""
    before, after = keys(), keys(run_inputs, **changes)
    return {place for place in before if before[place] != after.get(place)}


def all_of(*kinds, first=0):
    return {(kind, epoch) for kind in kinds for epoch in range(first, 8)}
