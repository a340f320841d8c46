"""Models of transformers: losses by sample that are their own, from the table to the last byte."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.runs.bare_run import BareRun
from support.runs.project import Project, environment

from epochal.data.errors import DataError, TargetError, TrainingFailed
from epochal.data.tables.writing import UPDATES, read_table
from epochal.tasks.adapters import (
    hugging_face,
    hugging_face_collate,
    hugging_face_step,
    hugging_face_texts,
)

transformers = pytest.importorskip("transformers")

WORDS = "[PAD] [UNK] [MASK] [CLS] [SEP] the a cat dog is was good bad not".split()  # noqa: SIM905 - words
BERT = {
    "model_type": "bert", "vocab_size": 16, "hidden_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 16,
}  # fmt: skip
GPT = {"model_type": "gpt2", "vocab_size": 16, "n_embd": 16, "n_layer": 1, "n_head": 2}
T5 = {
    "model_type": "t5", "vocab_size": 16, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1,
    "num_heads": 2, "decoder_start_token_id": 0,
}  # fmt: skip
VIT = {
    "model_type": "vit", "image_size": 8, "patch_size": 4, "num_channels": 1, "hidden_size": 16,
    "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
}  # fmt: skip
STEADY = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
ADAPTERS = "epochal.tasks.adapters"


def tokenizer(folder):
    """A folder with a tokenizer of a few words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({word: row for row, word in enumerate(WORDS)}, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad": "[PAD]", "unk": "[UNK]", "mask": "[MASK]", "cls": "[CLS]", "sep": "[SEP]"}
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, **{f"{name}_token": token for name, token in names.items()}
    )
    fast.save_pretrained(folder)
    return folder


def reviews(path, count=40):
    lines = ["text,label"]
    for row in range(count):
        kind = "good" if row % 2 else "bad"
        lines.append(f"the {'cat' if row % 3 else 'dog'} is {kind}{' a' * (row % 4)},{kind}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def ids(size, low=2, high=16):
    own = torch.Generator().manual_seed(size)
    return torch.randint(low, high, (size, 6), generator=own)


def padded(labels):
    labels = labels.clone()
    labels[0, 3:] = -100
    return labels


HEADS = {
    "single": ("sequence_classification", BERT, lambda n: {"labels": torch.arange(n) % 3}, 3),
    "many": ("sequence_classification", BERT, lambda n: {"labels": ids(n, 0, 2)[:, :3] / 1}, 3),
    "number": ("sequence_classification", BERT, lambda n: {"labels": torch.arange(n) / 7}, 1),
    "tokens": ("token_classification", BERT, lambda n: {"labels": padded(ids(n, 0, 3))}, 3),
    "masked": ("masked_lm", BERT, lambda n: {"labels": padded(ids(n))}, None),
    "next": ("causal_lm", GPT, lambda n: {"labels": padded(ids(n))}, None),
    "seq2seq": ("seq2seq_lm", T5, lambda n: {"labels": padded(ids(n))}, None),
    "answers": (
        "question_answering", BERT,
        lambda n: {"start_positions": torch.arange(n), "end_positions": torch.arange(n) + 2}, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_the_mean_of_the_samples_losses_is_the_models_own(name):
    task, config, labels, num_labels = HEADS[name]
    more = {} if num_labels is None else {"num_labels": num_labels}
    torch.manual_seed(1)
    model = hugging_face(task, config=config, **more).eval()
    step = hugging_face_step()
    for count in (2, 4):  # of two it is looked at by the step itself
        batch = {"input_ids": ids(count), "sample_id": torch.arange(count), **labels(count)}
        given = {key: value for key, value in batch.items() if key != "sample_id"}
        found, own = step(model, batch), model(**given).loss
        assert found.loss_B.shape == (count,)
        total = count if found.denominator_B is None else found.denominator_B.sum()
        torch.testing.assert_close(found.loss_B.sum() / total, own)


def test_images_of_tuples_are_classified():
    model = hugging_face("image_classification", config=VIT, num_labels=3)
    found = hugging_face_step()(model, (torch.rand(3, 1, 8, 8), torch.arange(3)))
    assert found.loss_B.shape == (3,)


def test_a_loss_with_more_terms_than_its_labels_is_refused_and_taken_whole_on_wish():
    class BalancedForSequenceClassification(transformers.BertForSequenceClassification):
        def forward(self, **inputs):
            made = super().forward(**inputs)
            made.loss = None if made.loss is None else made.loss + 1
            return made

    config = transformers.AutoConfig.for_model(**BERT, num_labels=3)
    model = BalancedForSequenceClassification(config)
    batch = {"input_ids": ids(2), "labels": torch.arange(2)}
    with pytest.raises(TargetError, match="per_sample: false"):
        hugging_face_step()(model, batch)
    assert hugging_face_step(per_sample=False)(model, batch).loss_B.shape == ()


def project(folder, *, task="sequence_classification", collate="padding", model=STEADY, **changes):
    folder = folder / "project"
    tokenizer(folder / "words")
    reviews(folder / "reviews.csv")
    text = {"path": "./reviews.csv", "tokenizer": "./words"}

    def data(part):
        args = {**text, "split": {"part": part, "fraction": 0.25}}
        return {"target": f"{ADAPTERS}:hugging_face_texts", "args": args}

    given = {
        "epochs": 3,
        "model": {
            "target": f"{ADAPTERS}:hugging_face",
            "args": {"task": task, "config": BERT, **model},
        },
        "step": {"target": f"{ADAPTERS}:hugging_face_step"},
        "train_data": data("train"),
        "validation_data": data("validation"),
        "loader": {
            "batch_size": 8,
            "collate": {
                "target": f"{ADAPTERS}:hugging_face_collate",
                "args": {"tokenizer": "./words", "kind": collate},
            },
        },
        "gradients": {},
        "sampling": {"policy": "none"},
        "checkpoint": {"every_updates": 2},
        **changes,
    }
    return Project(folder, **given)


def losses(run):
    found = []
    for epoch in range(3):
        record = run.view.record_of(run.view.stage("train", epoch))
        with run.session.stage_store.fetch_artifact(record, "updates") as path:
            columns = read_table(path, schema=UPDATES).columns
        found += columns["value"][columns["key"] == "train/loss"].tolist()
    return found


def test_losses_are_those_of_a_loop_on_the_models_own_loss(tmp_path, home, monkeypatch):
    """On the same batches and from the same weights, as the Trainer of transformers steps."""
    seen = []

    class Noted(type(hugging_face_step())):
        def __call__(self, model, batch):
            if model.training and len(batch["labels"]) > 2:
                seen.append({name: part.clone() for name, part in batch.items()})
            return super().__call__(model, batch)

    monkeypatch.setattr("epochal.tasks.adapters.hugging_face_steps.HuggingFaceStep", Noted)
    run = BareRun(project(tmp_path).config)()
    model = hugging_face("sequence_classification", config=BERT, **STEADY).train()
    first = run.view.record_of(next(one for one in run.view.stages if one.kind == "initialise"))
    with run.session.stage_store.fetch_artifact(first, "model") as path:
        model.load_state_dict(load_file(path))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    theirs = []
    for batch in seen[-12:]:
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        theirs.append(float(loss.detach()))
    np.testing.assert_allclose(losses(run), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("task", "collate"), [("masked_lm", "masked_lm")])
def test_a_killed_run_ends_in_the_bytes_of_an_unbroken_one(task, collate, tmp_path, home):
    """With dropout, and with masks that a collator draws."""
    changes = {"task": task, "collate": collate, "model": {}, "metrics": {"validation": ["loss"]}}
    whole = BareRun(project(tmp_path / "whole", **changes).config)()
    torn = project(tmp_path / "torn", **changes)
    torn.write(
        "step.py",
        """
        import os
        from epochal.tasks.adapters import hugging_face_step

        class Step(type(hugging_face_step())):
            calls = 0

            def __call__(self, model, batch):
                Step.calls += model.training and len(batch["labels"]) > 2
                if Step.calls == int(os.environ.get("FAIL_AT", -1)):
                    raise RuntimeError("the machine room is on fire")
                return super().__call__(model, batch)

        def step():
            return Step(per_sample=True)
        """,
    )
    own = {"step__target": "step:step"}
    with environment(FAIL_AT="7"), pytest.raises(TrainingFailed, match="machine room"):
        BareRun(torn.config, **own)()
    again = BareRun(torn.config, **own)()
    assert again.resumed
    assert again.weights == whole.weights


def test_a_policy_goes_by_the_samples_losses(tmp_path, home):
    run = BareRun(project(tmp_path, sampling={"policy": "easy_skip", "confidence": 0.51}).config)()
    counts = [one.record.values["samples"] for one in run.outcomes if one.stage.kind == "train"]
    assert counts[0] == 30 > min(counts)


def test_a_table_of_texts_has_classes_lengths_and_a_name_of_its_content(tmp_path):
    words = str(tokenizer(tmp_path / "words"))
    path = str(reviews(tmp_path / "r.csv"))
    data = hugging_face_texts(path, words)
    assert (data.classes, len(data), data.targets[:2].tolist()) == (["bad", "good"], 40, [0, 1])
    assert data[0].keys() >= {"input_ids", "attention_mask", "labels"}
    assert data.lengths.tolist()[:4] == [4, 5, 6, 7]
    batch = hugging_face_collate(words)([data[0], data[3]])
    assert batch["input_ids"].shape == (2, 7)
    assert hugging_face_texts(path, words).fingerprint() == data.fingerprint()
    assert hugging_face_texts(path, words, max_length=3).fingerprint() != data.fingerprint()
    with pytest.raises(DataError, match="has no column 'review'; it has text, label"):
        hugging_face_texts(path, words, text="review")


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"task": "poetry", "config": BERT}, "expected one of sequence_classification"),
        ({"task": "causal_lm"}, "expected one of `model`"),
        ({"task": "causal_lm", "model": "./nowhere"}, "./nowhere"),
        ({"task": "causal_lm", "config": {"model_type": "gpt9"}}, "gpt9"),
    ],
)
def test_a_model_that_cannot_be_made_is_told(args, told):
    with pytest.raises(TargetError) as raised:
        hugging_face(**args)
    assert told in str(raised.value)
