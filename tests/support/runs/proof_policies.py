"""The proof for every sampling policy: a small run of each, killed at each operation of its store.

What a policy carries from table to table, its credit or its counts, must be what an unbroken run
has, and so must the plans that follow from it.
"""

from pathlib import Path

from support.runs.forked_runs import Lives
from support.runs.project import Project

OWN = """
    import numpy as np

    def hardest(table, context, share):
        loss = table["loss"]
        keep = loss >= np.quantile(loss, 1 - share)
        return keep, np.ones(len(loss))
"""

# Each with what makes it leave samples out, and count or estimate, in a run of four epochs.
POLICIES = {
    "easy_skip": {"policy": "easy_skip", "confidence": 0.5},
    "easy_skip, noise": {"policy": "easy_skip", "confidence": 0.5, "label_noise": "drop"},
    "importance": {"policy": "importance"},
    "importance, noise": {"policy": "importance", "label_noise": "drop", "score": "loss"},
    "importance, trusted": {"policy": "importance", "score": "trusted_el2n", "budget": 0.4},
    "infobatch": {"policy": "infobatch"},
    "kakurenbo": {"policy": "kakurenbo", "confidence": 0.4},
    "cvnets": {"policy": "cvnets", "confidence": 0.5, "every": 1, "count": 1},
    "cvnets, scored": {
        "policy": "cvnets",
        "confidence": 0.5,
        "every": 1,
        "count": 1,
        "scoring": {"every": 2},
    },
    "seta": {"policy": "seta", "groups": 4},
    "hard_mining": {"policy": "hard_mining", "batch": "sqrt"},
    "selective_backprop": {"policy": "selective_backprop"},
    "curriculum": {"policy": "curriculum"},
    "random": {"policy": "random", "shares": [1.0, 0.5, 0.25], "batch": "proportional"},
    "custom": {"policy": "custom", "target": "own:hardest", "args": {"share": 0.5}},
}


def policy_lives(name: str, folder: Path) -> Lives:
    """The run of that policy, its stores and its unbroken end."""
    sampling = {"final_full": 0, "noise_from": 1, **POLICIES[name]}
    project = Project(
        folder / "project",
        threads=1,
        epochs=4,
        train_data={"target": "blobs:blobs", "args": {"split": "train", "size": 60}},
        validation_data={"target": "blobs:blobs", "args": {"split": "validation", "size": 12}},
        loader={"batch_size": 4},
        sampling=sampling,
    )
    project.write("own.py", OWN)
    return Lives.on_files(project.config, folder).prepare()
