"""Whose an error is, and in which of a model's modules it was raised."""

import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from epochal.data.store.open import open_store
from epochal.engine.model.build import build_loss
from epochal.engine.model.step import DefaultStep
from epochal.tasks.trainer.interruption import Interruption
from epochal.tasks.user_code.failures import failed_module, raised_by_users_code


def caught(function, *arguments, **more):
    with pytest.raises(BaseException) as error:
        function(*arguments, **more)
    return error.value


def stepped(model, rows=None):
    step = DefaultStep(build_loss(nn.CrossEntropyLoss, {}))
    rows = torch.ones(4, 6) if rows is None else rows
    return caught(step, model, (rows, torch.zeros(4, dtype=torch.int64)))


class Opens(nn.Module):
    def forward(self, x):
        return Path("/nowhere/at/all").read_text()


class Exits(nn.Module):
    def forward(self, x):
        raise SystemExit(0)


@pytest.mark.parametrize("model", [Opens(), Exits()])
def test_what_a_model_raises_is_the_users_whatever_its_class(model):
    assert raised_by_users_code(stepped(model))


def test_what_an_installed_package_raises_for_the_user_is_the_users():
    assert raised_by_users_code(stepped(nn.Linear(5, 3)))


def test_what_a_store_raises_is_not(tmp_path):
    (tmp_path / "file").write_text("in the way")
    opened = open_store(f"file://{tmp_path}/file/store", folder=tmp_path)
    assert not raised_by_users_code(caught(opened.put_new, "x", b"x"))


def test_what_a_signal_raises_in_the_middle_of_the_users_code_is_not():
    class Signalled(nn.Module):
        def forward(self, x):
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)

    def noted():
        with Interruption().noted():
            step = DefaultStep(build_loss(nn.CrossEntropyLoss, {}))
            step(Signalled(), (torch.ones(4, 6), torch.zeros(4)))

    assert not raised_by_users_code(caught(noted))


def model():
    layers = [nn.Linear(6, 6) for _ in range(12)]
    layers[7] = nn.Linear(5, 6)
    return nn.Sequential(*layers, nn.Linear(6, 3))


def test_the_layer_that_does_not_fit_is_named_with_what_it_was_given():
    made = model()
    told = failed_module(stepped(made), {"model": made})
    assert told == ", in model.7 (Linear), called with torch.float32 of shape (4, 6)"


def test_a_loss_that_does_not_fit_is_named():
    made, loss = nn.Linear(6, 3), nn.CrossEntropyLoss()
    error = caught(lambda: loss(made(torch.ones(4, 6)), torch.zeros(3, dtype=torch.int64)))
    assert failed_module(error, {"model": made, "loss": loss}) == (
        ", in loss (CrossEntropyLoss), called with torch.float32 of shape (4, 3) and torch.int64 "
        "of shape (3,)"
    )


def test_an_error_outside_all_modules_names_none():
    def read():
        raise KeyError("missing")

    assert failed_module(caught(read), {"model": model()}) == ""
