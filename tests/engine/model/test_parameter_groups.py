"""Groups of parameters: by pattern, kind and layer, with rates and options of their own."""

import pytest
import torch
from pydantic import ValidationError
from support.numbers.stage_keys import all_of, changed, keys
from support.numbers.tiny_model import Net, cross_entropy, new_state, run_epoch, samples
from support.runs.bare_run import BareRun
from support.runs.jobs import require_packages
from support.runs.project import Project
from torch import nn

from epochal.data.errors import TargetError
from epochal.data.tables.writing import UPDATES, read_table
from epochal.engine.checkpoint.serialize import load_state, split_state
from epochal.engine.config.numerics import MetricsConfig
from epochal.engine.config.optimizer import OptimizerConfig
from epochal.engine.model.build import build_model, build_optimizer
from epochal.engine.model.parameter_groups import check_options, layers, make_groups
from epochal.engine.model.state import TrainingState

LR = 0.05


def config(args=None, **fields):
    return OptimizerConfig(target="torch.optim:AdamW", args={"lr": LR, **(args or {})}, **fields)


def grouped(model, given, factory=torch.optim.AdamW):
    found = make_groups(model, given)
    optimizer = build_optimizer(model, factory, given.args, groups=found.groups)
    check_options(optimizer, given)
    return TrainingState(model=model, optimizer=optimizer, rate_names=found.rate_names)


def options(state):
    """Parameter → (base rate, weight decay)."""
    return {
        name: (rate, group["weight_decay"])
        for group, rate, names in zip(
            state.optimizer.param_groups, state.base_rates, state.parameter_names, strict=True
        )
        for name in names
    }


def test_norms_and_biases_can_be_left_without_weight_decay():
    given = config({"weight_decay": 0.1}, no_decay=["norms", "biases"])
    found = options(grouped(Net(), given))
    assert {name for name, (_, decay) in found.items() if decay == 0.1} == {
        "body.0.weight", "head.weight"
    }  # fmt: skip
    only = options(grouped(Net(), config({"weight_decay": 0.1}, no_decay=["norms"])))
    assert {name for name, (_, decay) in only.items() if decay == 0} == {
        "body.1.weight", "body.1.bias"
    }  # fmt: skip


def test_biases_of_attention_and_users_norms_count_too():
    class MyRMSNorm2d(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2))

    class NormalHead(nn.Linear):
        pass

    model = nn.ModuleDict({
        "attention": nn.MultiheadAttention(4, 2), "norm": MyRMSNorm2d(), "head": NormalHead(2, 2),
        "table": nn.ParameterDict({"relative_position_bias_table": nn.Parameter(torch.ones(2))}),
    })  # fmt: skip
    found = options(grouped(model, config({"weight_decay": 0.1}, no_decay=["norms", "biases"])))
    assert {name for name, (_, decay) in found.items() if decay == 0} == {
        "attention.in_proj_bias", "attention.out_proj.bias", "norm.scale", "head.bias"
    }  # fmt: skip


def test_the_first_pattern_that_matches_counts_and_its_options_win():
    given = config(
        {"weight_decay": 0.1},
        no_decay=["biases"],
        groups=[
            {"match": "head.bias", "lr": 0.5, "weight_decay": 0.3},
            {"match": "head.*", "lr_factor": 10, "betas": [0.8, 0.9]},
        ],
    )
    state = grouped(Net(), given)
    found = options(state)
    assert found["head.bias"] == (0.5, 0.3)
    assert found["head.weight"] == (LR * 10, 0.1)
    assert found["body.0.weight"] == (LR, 0.1)
    assert found["body.0.bias"] == (LR, 0.0)
    assert state.rate_names == ("base", "base", "head.*", "head.bias")
    assert state.further_rates == {"head.*": LR * 10, "head.bias": 0.5}


class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential()
        self.stem.conv = nn.Linear(6, 8)
        self.encoder = nn.Module()
        self.encoder.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)) for _ in range(2)
        )
        self.encoder.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem.conv(x)
        for block in self.encoder.blocks:
            x = block(x)
        return self.head(self.encoder.norm(x))


def test_layers_are_numbered_modules_and_what_stands_beside_them():
    found = {}
    for name, layer in layers(Deep()).items():
        found.setdefault(layer.label, []).append(name)
    assert list(found) == ["stem", "encoder.blocks.0", "encoder.blocks.1", "encoder.norm", "head"]
    assert found["encoder.blocks.0"] == [
        "encoder.blocks.0.0.weight", "encoder.blocks.0.0.bias",
        "encoder.blocks.0.2.weight", "encoder.blocks.0.2.bias",
    ]  # fmt: skip


def test_rates_fall_from_the_last_layer_to_the_first():
    found = options(grouped(Deep(), config(layer_decay=0.5)))
    rates = {name.rpartition(".")[0]: rate for name, (rate, _) in found.items()}
    assert rates["head"] == LR
    assert rates["encoder.norm"] == LR / 2
    assert rates["encoder.blocks.1.0"] == rates["encoder.blocks.1.2"] == LR / 4
    assert rates["stem.conv"] == LR / 16


def test_a_model_may_say_what_its_layers_are():
    class Own(Deep):
        def layer_groups(self):
            return [self.stem, [self.encoder.blocks, self.encoder.norm], self.head]

    found = options(
        grouped(Own(), config(layer_decay=0.5, groups=[{"match": "*.norm.*", "lr": 1}]))
    )
    assert found["stem.conv.weight"][0] == LR / 4
    assert found["encoder.blocks.0.0.weight"][0] == LR / 2
    assert found["encoder.norm.weight"][0] == 1


@pytest.mark.parametrize(("stated", "words"), [
    (lambda model: 3, "layer_groups() returned a int"),
    (lambda model: [model.stem, model.head], "leaves out encoder.blocks.0.0.weight"),
    (lambda model: [model.stem, "head"], "layer 1 of its layer_groups() holds a str"),
    (lambda model: [nn.Linear(3, 3)], "that the model does not have"),
])  # fmt: skip
def test_layers_that_are_none_are_refused(stated, words):
    model = Deep()
    model.layer_groups = lambda: stated(model)
    with pytest.raises(TargetError) as error:
        make_groups(model, config(layer_decay=0.5))
    assert words in str(error.value)


@pytest.mark.parametrize(("fields", "words"), [
    ({"groups": [{"match": "haed.*"}]}, "'haed.*' matches no parameter that trains; their names"),
    ({"groups": [{"match": "*"}, {"match": "head.*"}]}, "only what groups before it have"),
    ({"groups": [{"match": "*", "momentun": 1}]}, "AdamW has no option 'momentun', it has amsgrad"),
])  # fmt: skip
def test_groups_that_do_nothing_are_refused(fields, words):
    with pytest.raises(TargetError) as error:
        grouped(Net(), config(**fields))
    assert words in str(error.value)


@pytest.mark.parametrize("group", [
    {}, {"match": "x", "lr": 0}, {"match": "x", "lr": 1, "lr_factor": 2},
    {"match": "x", "lr_factor": 0}, {"match": "x", "params": []},
])  # fmt: skip
def test_what_is_no_group_is_refused(group):
    with pytest.raises(ValidationError):
        config(groups=[group])


def test_a_config_comes_back_from_its_own_dump():
    group = {"match": "head.*", "lr": 0.5, "betas": [0.8, 0.9]}
    given = config(groups=[group], frozen=[{"match": "body.*"}], no_decay=["norms"])
    again = OptimizerConfig.model_validate(given.model_dump(mode="json"))
    assert again == given
    assert again.groups[0].options == {"lr": 0.5, "betas": [0.8, 0.9]}
    assert again.key_slice() == given.key_slice() == {"groups": [group], "no_decay": ["norms"]}


def test_training_in_groups_is_bitwise_that_of_a_loop_by_hand():
    x, y = samples(64)
    given = config({"weight_decay": 0.1}, no_decay=["norms"], groups=[{"match": "head.*", "lr": 1}])

    def make():
        return Net(dropout=0.0)

    state = grouped(build_model(make, seed=1), given)
    run_epoch(state, x, y, rate=lambda t: 1 - t / 2, clip_norm=0.5)
    model = build_model(make, seed=1)
    parts = [
        ([model.body[0].weight, model.body[0].bias], LR, 0.1),
        ([model.body[1].weight, model.body[1].bias], LR, 0.0),
        ([model.head.weight, model.head.bias], 1.0, 0.1),
    ]
    optimizer = torch.optim.AdamW(
        [{"params": one, "lr": lr, "weight_decay": decay} for one, lr, decay in parts]
    )
    model.train()
    for update in range(8):
        low = update * 8
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[low : low + 8]), y[low : low + 8]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        for group, (_, lr, _) in zip(optimizer.param_groups, parts, strict=True):
            group["lr"] = lr * (1 - (update + 0.5) / 8 / 2)
        optimizer.step()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state.model.state_dict()[name]), name


def test_a_state_in_groups_comes_back_whole():
    given = config(layer_decay=0.5, no_decay=["biases"])
    state, other = (grouped(build_model(Net, seed=seed), given) for seed in (1, 2))
    run_epoch(state, *samples(40))
    load_state(other, split_state(state))
    assert split_state(other).document == split_state(state).document
    assert other.base_rates == state.base_rates


def test_rates_are_recorded_whole_however_small():
    given = config({"lr": 1.23456789e-7}, groups=[{"match": "head.*", "lr_factor": 0.001}])
    state = grouped(Net(), given)
    seen = []
    result = run_epoch(
        state, *samples(16), rate=lambda t: 1 - t, on_progress=lambda one: seen.append(one.live())
    )
    expected = [1.23456789e-7 * (1 - t) for t in (0.25, 0.75)]
    assert result.updates["train/learning_rate"].tolist() == expected
    assert [one.learning_rate for one in seen] == expected
    further = [1.23456789e-7 * 0.001 * (1 - t) for t in (0.25, 0.75)]
    assert result.updates["train/learning_rate/head.*"].tolist() == further


def test_one_group_has_one_rate():
    result = run_epoch(new_state(), *samples(16), step=cross_entropy())
    assert [name for name in result.updates if "rate" in name] == ["train/learning_rate"]


def test_the_loss_is_measured_once_however_the_metrics_are_given():
    for names in ([], ["accuracy"], ["loss", "accuracy"]):
        found = MetricsConfig(validation=names).names
        assert sorted(found) == sorted({*names, "loss"})
        assert all(isinstance(name, str) for name in found)


TRAINED = all_of("train", "validate", "mine")


@pytest.mark.parametrize(("changes", "expected"), [
    ({"optimizer__groups": []}, set()),
    ({"optimizer__no_decay": []}, set()),
    ({"optimizer__layer_decay": None}, set()),
    ({"optimizer__groups": [{"match": "head.*", "lr_factor": 2}]}, TRAINED),
    ({"optimizer__no_decay": ["norms"]}, TRAINED),
    ({"optimizer__layer_decay": 0.5}, TRAINED),
])  # fmt: skip
def test_groups_are_in_the_key_where_there_are_any(changes, expected):
    assert changed(**changes) == expected


def test_the_order_of_kinds_without_decay_is_in_no_key():
    one, other = (keys(optimizer__no_decay=kinds) for kinds in (["norms", "biases"],
                                                               ["biases", "norms"]))  # fmt: skip
    assert one == other


def test_a_run_in_groups_resumes_to_the_same_bytes_and_records_each_rate(tmp_path, home):
    from support.runs.project import environment

    from epochal.data.errors import TrainingFailed

    optimizer = {
        "target": "torch.optim:AdamW", "args": {"lr": 0.01}, "no_decay": ["norms", "biases"],
        "layer_decay": 0.5, "groups": [{"match": "head.weight", "lr_factor": 2}],
    }  # fmt: skip
    project = Project(tmp_path / "project", epochs=2, optimizer=optimizer)
    whole = BareRun(project.config, store=f"file://{tmp_path}/whole")()
    often = {"checkpoint__every_updates": 1}
    with environment(FAIL_AT_CALL="8"), pytest.raises(TrainingFailed):
        BareRun(project.config, **often)()
    again = BareRun(project.config, **often)()
    assert again.digests == whole.digests
    assert again.resumed
    record = again.view.record_of(again.view.stage("train", 0))
    with again.session.stage_store.fetch_artifact(record, "updates") as path:
        columns = read_table(path, schema=UPDATES).columns
    assert {key for key in columns["key"] if key.startswith("train/learning_rate")} == {
        "train/learning_rate", "train/learning_rate/body.1", "train/learning_rate/head",
        "train/learning_rate/head.weight/head",
    }  # fmt: skip


# Layers by a matcher, as timm's models have one


class Patches(nn.Module):
    """The names of a vision transformer's parameters, and its matcher."""

    def __init__(self, rule=None, depth=4):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.patch_embed = nn.Linear(4, 4)
        self.blocks = nn.Sequential(*(nn.Linear(4, 4) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 3)
        self.rule = rule or {
            "stem": r"^cls_token|patch_embed",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        }

    def group_matcher(self, coarse=False):
        assert not coarse
        return self.rule


def factors(model, decay=0.75):
    found = options(grouped(model, config(layer_decay=decay)))
    return {name: rate / LR for name, (rate, _) in found.items()}


def test_layers_are_those_of_the_models_own_matcher():
    found = factors(Patches())
    assert found["cls_token"] == found["patch_embed.weight"] == pytest.approx(0.75**5)
    for block in range(4):
        assert found[f"blocks.{block}.weight"] == pytest.approx(0.75 ** (4 - block))
    assert found["norm.weight"] == pytest.approx(0.75)  # of the last block's layer
    assert found["head.weight"] == 1


def test_a_matcher_may_be_a_function_of_a_parameters_name():
    found = factors(Patches(lambda name: 1 if name.startswith("head") else 0))
    assert {name for name, factor in found.items() if factor == 1} == {"head.weight", "head.bias"}
    assert sorted(set(found.values())) == pytest.approx([0.75, 1])


def test_layers_that_do_not_train_count_as_layers():
    model = Patches()
    for parameter in model.blocks[2].parameters():
        parameter.requires_grad = False
    assert factors(model)["cls_token"] == pytest.approx(0.75**5)


@pytest.mark.parametrize("rule", [{"stem": 3}, {"stem": "("}, {"blocks": [r"^blocks"]}, 3])
def test_a_matcher_of_another_form_is_refused(rule):
    with pytest.raises(TargetError, match=r"group_matcher\(\) is not of timm's form"):
        factors(Patches(rule))


def test_layer_groups_go_before_a_matcher():
    model = Patches()
    model.layer_groups = lambda: [[model.cls_token, model.patch_embed, model.blocks, model.norm],
                                  model.head]  # fmt: skip
    assert factors(model)["blocks.0.weight"] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("name", "options_of_it"),
    [
        ("vit_tiny_patch16_224", {"depth": 4, "img_size": 32}),
        ("resnet18", {}),
        ("convnext_atto", {}),
        ("swin_tiny_patch4_window7_224", {"depths": (1, 1, 2, 1)}),
        ("mobilevit_xxs", {}),
    ],
)
def test_rates_are_those_of_timms_own_groups(name, options_of_it):
    require_packages("vit_timm")
    import timm
    from timm.optim import param_groups_layer_decay

    model = timm.create_model(name, num_classes=5, **options_of_it)
    theirs = {
        parameter: group["lr_scale"]
        for group in param_groups_layer_decay(model, layer_decay=0.75)
        for parameter in group["params"]
    }
    named, found = dict(model.named_parameters()), factors(model)
    for parameter_name, factor in found.items():
        assert factor == pytest.approx(theirs[named[parameter_name]]), parameter_name
    assert name != "vit_tiny_patch16_224" or min(found.values()) == pytest.approx(0.75**5)
