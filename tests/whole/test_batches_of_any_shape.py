"""Whole runs over items of different lengths: padded, by length, by blocks, in longer epochs."""

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project, environment

from epochal.data.errors import DataError, TargetError, TrainingFailed
from epochal.tasks.config.load import load_config
from epochal.tasks.runs.plan import make_plan

SENTENCES = """
    import numpy as np
    import torch
    from torch.utils.data import Dataset

    class Sentences(Dataset):
        '''Words of three topics; a text, and no remark in every second. Stored in blocks of 5.'''

        def __init__(self, split, size=37):
            draw = np.random.RandomState({"train": 1, "validation": 2}[split])
            self.lengths = draw.randint(1, 13, size).astype(np.int64)
            self.targets = np.arange(size, dtype=np.int64) % 3
            self.blocks = np.array([*range(0, size, 5), size], dtype=np.int64)
            self.words = [
                torch.from_numpy(draw.randint(1, 9, length) + 8 * topic)
                for length, topic in zip(self.lengths, self.targets)
            ]

        def __len__(self):
            return len(self.words)

        def __getitem__(self, row):
            return {
                "input": self.words[row] + torch.randint(0, 2, ()),
                "target": int(self.targets[row]),
                "text": f"sentence {row}",
                "remark": None if row % 2 else "even",
            }
"""
BAG = """
    import os
    from torch import nn

    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.EmbeddingBag(40, 8, mode="sum", padding_idx=0)
            self.head = nn.Linear(8, 3)
            self.calls = 0

        def forward(self, words):
            if self.training:
                self.calls += 1
                if self.calls == int(os.environ.get("FAIL_AT_CALL", -1)):
                    raise RuntimeError("the machine room is on fire")
            return self.head(self.embedding(words))
"""
OWN = """
    import torch
    from epochal.data.loading.collate import pad

    class Collator:
        def __init__(self, masked=0.0):
            self.masked = masked

        def __call__(self, features):
            batch = pad(features, keys=["input"], lengths="lengths")
            keep = torch.rand(batch["input"].shape) >= self.masked
            batch["input"] = batch["input"] * keep
            return batch
"""
PAD = {"target": "epochal.data.loading.collate:pad", "args": {"keys": ["input"]}}


def sentence_project(folder, **changes):
    """The project in a folder of its own, without a collate unless one is given."""
    settings = {
        "name": "sentences",
        "epochs": 2,
        "threads": 1,
        "model": {"target": "bag:Bag"},
        "train_data": {"target": "sentences:Sentences", "args": {"split": "train"}},
        "validation_data": {
            "target": "sentences:Sentences", "args": {"split": "validation", "size": 14},
        },
        "loader": {"batch_size": 4},
        "gradients": {"accumulate": 2},
        "sampling": {"policy": "none"},
    }  # fmt: skip
    project = Project(folder, **{**settings, **changes})
    project.write("sentences.py", SENTENCES)
    project.write("bag.py", BAG)
    project.write("own.py", OWN)
    return project


COLLATOR = "{target: 'own:Collator', args: {masked: 0.2}}"


@pytest.fixture
def project(tmp_path, home):
    return sentence_project(tmp_path / "project")


def run(project, **sets):
    return BareRun(project.config, **{"loader__collate": COLLATOR, **sets})


def test_a_collate_that_draws_gives_the_same_bytes_with_workers_and_after_a_restart(
    project, tmp_path
):
    scored = "{policy: easy_skip, scoring: {every: 1}, warm_up: 1, final_full: 0}"
    sets = {"sampling": scored}
    whole = run(project, store=f"file://{tmp_path}/whole", loader__workers=2, **sets)()
    assert {stage for stage, _, _ in whole.digests} >= {"train", "score", "mine"}
    often = {"checkpoint__every_updates": 1, **sets}
    with environment(FAIL_AT_CALL="8"), pytest.raises(TrainingFailed):
        run(project, **often)()
    again = run(project, **often)()
    assert again.resumed
    assert again.digests == whole.digests


def test_the_code_of_a_collate_is_in_the_keys_of_all_that_reads_batches(project):
    run(project)()
    assert run(project).view.is_whole
    source = project.folder / "own.py"
    source.write_text(source.read_text().replace("keep = torch.rand", "keep = 0.1 + torch.rand"))
    config = load_config(project.config, overrides=[f"loader.collate={COLLATOR}"])
    plan = make_plan(config)
    assert plan.num_done == 1  # the initial weights
    assert any("loader.collate" in why and "own.py" in why for why in plan.reports[1].why)


def test_without_a_collate_the_start_names_it(project):
    for sets in ({}, {"loader__batch_size": 1, "loader__validation_batch_size": 1}):
        with pytest.raises((DataError, TargetError), match=r"loader\.collate"):
            BareRun(project.config, **sets)()


def test_a_collate_that_leaves_items_out_is_refused_at_the_start(project):
    project.write("own.py", "def some(items): return [item['input'] for item in items][1:]\n")
    with pytest.raises((DataError, TargetError), match="no item may be left out"):
        run(project, loader__collate="{target: 'own:some'}")()


def test_the_built_in_padding_needs_no_code(tmp_path, home):
    project = sentence_project(tmp_path / "project", loader={"batch_size": 4, "collate": PAD})
    values = [record.values for record in BareRun(project.config)().view.records.values()]
    assert [one["samples"] for one in values if "samples" in one].count(37) == 2


ORDERS = {
    "blocks": {"batches": "{shuffle: blocks, shuffle_blocks: 2}"},
    "by length": {"batches": "{by_length: 3}", "loader__batch_tokens": 30},
    "tokens": {"loader__batch_tokens": 30},
    "walk": {"loader__epoch_samples": 29, "batches": "{shuffle_blocks: 2, by_length: 2}"},
}


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ORDERS if name != "walk"]


@pytest.mark.parametrize("name", ["walk", *SLOW])
def test_an_epoch_in_any_order_goes_on_to_the_same_bytes(project, tmp_path, name):
    sets = ORDERS[name]
    whole = run(project, store=f"file://{tmp_path}/whole", loader__workers=2, **sets)()
    often = {"checkpoint__every_updates": 1, **sets}
    with environment(FAIL_AT_CALL="8"), pytest.raises(TrainingFailed):
        run(project, **often)()
    again = run(project, **often)()
    assert again.resumed
    assert again.digests == whole.digests


def test_epochs_of_a_length_of_their_own_end_at_that_many_samples(project):
    sets = {"loader__epoch_samples": 50, "epochs": 3, "max_updates": 15}
    records = run(project, **sets)().view.records.values()
    done = [one.values for one in records if one.stage == "train"]
    assert [one["samples"] for one in done] == [50, 50, 8]
    assert [one["updates"] for one in done] == [7, 7, 1]


def of_train_data(run):
    return run.session.data["train_data"].fingerprint


def test_blocks_and_lengths_count_as_content_where_the_order_goes_by_them(project):
    fingerprint = of_train_data(run(project)())
    assert of_train_data(run(project, batches="{shuffle: global}")) != fingerprint
    source = project.folder / "sentences.py"
    source.write_text(source.read_text().replace("range(0, size, 5)", "range(0, size, 6)"))
    assert of_train_data(run(project)) != fingerprint
    config = load_config(project.config, overrides=[f"loader.collate={COLLATOR}"])
    assert make_plan(config).num_done == 1


def test_plan_knows_the_keys_of_an_order_by_blocks_and_by_length(project):
    sets = {"batches": "{by_length: 2}"}
    run(project, **sets)()
    overrides = [f"loader.collate={COLLATOR}", "batches={by_length: 2}"]
    assert make_plan(load_config(project.config, overrides=overrides)).num_done == 5
    overrides[1] = "loader.batch_tokens=30"
    assert make_plan(load_config(project.config, overrides=overrides)).num_done == 1


@pytest.mark.parametrize(
    ("sets", "gone", "text"),
    [
        ({"batches": "{shuffle: blocks}"}, "blocks", "batches.shuffle: blocks goes by .* has none"),
        ({"batches": "{by_length: 2}"}, "lengths", "batches.by_length: .* `lengths`"),
        ({"loader__batch_tokens": 9}, "lengths", "loader.batch_tokens: .* `lengths`"),
        ({"loader__batch_tokens": 9}, None, "loader.batch_tokens: found 9, but the item"),
    ],
)
def test_an_order_that_the_data_set_cannot_give_is_refused_at_the_start(project, sets, gone, text):
    source = project.folder / "sentences.py"
    if gone is not None:
        source.write_text(source.read_text().replace(f"self.{gone}", f"self.no_{gone}"))
    with pytest.raises(DataError, match=text):
        run(project, **sets)
    assert not list(project.store.glob("stages/*"))


def test_a_mixture_has_an_order_of_its_own_of_any_length(project):
    sets = "{sets: [{target: 'sentences:Sentences', args: {split: train}}], weights: [1]}"
    mixture = f"{{target: 'epochal.data.datasets.mixture:mixture', args: {sets}}}"
    with pytest.raises(DataError, match="batches.shuffle: blocks: train_data is a mixture"):
        run(project, train_data=mixture, batches="{shuffle: blocks}")
    sets = {"batches": "{by_length: 2}", "loader__epoch_samples": 50}
    records = run(project, train_data=mixture, **sets)().view.records.values()
    assert [one.values["samples"] for one in records if one.stage == "train"] == [50, 50]


@pytest.mark.slow
def test_the_number_of_processes_is_no_part_of_what_is_made(tmp_path, home):
    found = []
    for processes in (1, 2, 3):
        folder = tmp_path / str(processes)
        project = sentence_project(folder, gradients={"accumulate": 4, "shards": 4})
        sets = {"loader__batch_tokens": 30, "batches": "{by_length: 3, shuffle_blocks: 2}"}
        one = run(project, launch__kind="local", launch__processes=processes, **sets)
        try:
            one()
        finally:
            one.session.trainer.close()
        found.append(one.digests)
    assert found[0] == found[1] == found[2]
