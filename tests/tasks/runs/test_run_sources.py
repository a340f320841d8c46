"""The code of a run's targets: whatever of the user's ran when they were built is in the keys."""

import sys

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project

from epochal.data.errors import DataError, PreflightFailed
from epochal.data.store.open import open_store
from epochal.tasks.config.load import load_config
from epochal.tasks.runs.plan import make_plan
from epochal.tasks.runs.run_sources import read_sources

NET = """
    from torch import nn

    def build(width=4):
        return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))
"""


@pytest.fixture
def project(tmp_path, home):
    before = set(sys.modules)
    yield Project(tmp_path / "project", epochs=1, sampling={"policy": "none"})
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def trained(project, **sets):
    run = BareRun(project.config, **sets)()
    return run, {one.stage.kind for one in run.outcomes if not one.cached}


def planned(project, **sets):
    overrides = [f"{name.replace('__', '.')}={value}" for name, value in sets.items()]
    return make_plan(load_config(project.config, overrides=overrides))


ALL = {"initialise", "train", "validate"}


@pytest.fixture
def by_name(project):
    """A model that imports its network by a name that is made at run time."""
    project.write(
        "model.py",
        """
        import importlib

        def net(arch):
            return importlib.import_module(f"nets_{arch}").build()
        """,
    )
    for arch in ("small", "large"):
        project.write(f"nets_{arch}.py", "from layers import build\n")
    project.write("layers.py", NET)
    return {"model": "{target: 'model:net', args: {arch: small}}"}


def test_code_named_at_run_time_is_in_the_keys_once_it_was_built(project, by_name):
    run, computed = trained(project, **by_name)
    assert computed == ALL
    assert list(run.session.run_inputs.sources["model"]) == [
        "layers.py", "model.py", "nets_small.py",
    ]  # fmt: skip
    assert "model: building it loaded layers.py, nets_small.py" in "\n".join(run.notices)
    again, computed = trained(project, **by_name)
    assert computed == set()
    assert not any("nets_small" in text for text in again.notices)
    for file in ("nets_small.py", "layers.py"):
        with (project.folder / file).open("a") as stream:
            stream.write("\nCHANGED = 1\n")
        assert planned(project, **by_name).num_done == 0
        assert any(file in why for why in planned(project, **by_name).reports[0].why)
        assert trained(project, **by_name)[1] == ALL


def test_each_run_of_a_process_has_the_modules_that_its_own_building_loaded(project, by_name):
    large = {"model": "{target: 'model:net', args: {arch: large}}"}
    trained(project, **by_name)
    run, _ = trained(project, **large)
    assert "nets_large.py" in run.session.run_inputs.sources["model"]
    assert "nets_small.py" not in run.session.run_inputs.sources["model"]
    wider = {"model": "{target: 'model:net', args: {arch: small}}", "seed": 9}
    assert "nets_small.py" in trained(project, **wider)[0].session.run_inputs.sources["model"]


def test_before_the_first_build_plan_says_what_it_cannot_follow(project, by_name):
    place = "model: model.py, line 4: importlib.import_module(f'nets_{arch}')"
    assert any(note.startswith(place) for note in planned(project, **by_name).notes)
    trained(project, **by_name)
    assert not any(note.startswith(place) for note in planned(project, **by_name).notes)


def test_data_and_model_that_load_one_module_by_its_name_both_have_it_in_their_keys(project):
    text = "import importlib\ndef common(): return importlib.import_module('com' + 'mon')\n"
    project.write("common.py", NET)
    project.write("model.py", f"{text}def net(): return common().build()\n")
    blobs = (project.folder / "blobs.py").read_text()
    project.write("blobs.py", f"{text}common()\n{blobs}")
    sets = {"model": "{target: 'model:net'}"}
    run, _ = trained(project, **sets)
    sources = run.session.run_inputs.sources
    assert "common.py" in sources["model"]
    assert "common.py" in sources["train_data"]
    assert "common.py" in sources["validation_data"]
    assert trained(project, **sets)[1] == set()


def test_code_whose_folder_the_users_code_puts_on_the_path_is_in_the_keys(project, tmp_path):
    library = tmp_path / "library"
    library.mkdir()
    project.write("../library/brought.py", NET)
    project.write(
        "model.py",
        """
        import sys
        from pathlib import Path
        sys.path.insert(0, str(Path(__file__).parents[1] / "library"))
        from brought import build
        """,
    )
    sets = {"model": "{target: 'model:build'}"}
    assert "brought.py" in trained(project, **sets)[0].session.run_inputs.sources["model"]
    assert trained(project, **sets)[1] == set()
    project.write("../library/brought.py", NET.replace("width=4", "width=5"))
    assert planned(project, **sets).num_done == 0
    assert trained(project, **sets)[1] == ALL


def test_a_package_on_the_path_that_a_file_beside_the_config_imports_is_in_the_keys(
    project, tmp_path, monkeypatch
):
    package = tmp_path / "src" / "ownpkg_of_test"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    project.write("../src/ownpkg_of_test/model.py", "from .deep import build\n")
    project.write("../src/ownpkg_of_test/deep.py", NET)
    project.write("glue.py", "from ownpkg_of_test.model import build\n")
    monkeypatch.syspath_prepend(str(tmp_path / "src"))
    sets = {"model": "{target: 'glue:build'}"}
    run, _ = trained(project, **sets)
    assert list(run.session.run_inputs.sources["model"]) == [
        "glue.py", "ownpkg_of_test/__init__.py", "ownpkg_of_test/deep.py",
        "ownpkg_of_test/model.py",
    ]  # fmt: skip
    project.write("../src/ownpkg_of_test/deep.py", NET.replace("width=4", "width=5"))
    assert planned(project, **sets).num_done == 0
    edited, computed = trained(project, **sets)
    assert computed == ALL
    assert edited.work.ready_components().state.model[0].out_features == 5


def test_remarks_docstrings_and_formatting_change_no_key(project):
    trained(project)
    text = (project.folder / "model.py").read_text()
    text = f'"""What it is."""\n\n{text}\n# a remark\n'.replace("width=16", "width = 16")
    (project.folder / "model.py").write_text(text)
    assert trained(project)[1] == set()


def test_a_file_that_args_name_is_in_the_keys_by_its_content(project):
    project.write("model.py", f"{NET}\n    def net(path, width=4): return build(width)\n")
    project.write("weights.bin", "one")
    sets = {"model": "{target: 'model:net', args: {path: ./weights.bin}}"}
    assert trained(project, **sets)[1] == ALL
    project.write("weights.bin", "one")  # written again, the same
    assert trained(project, **sets)[1] == set()
    project.write("weights.bin", "two")
    (why,) = planned(project, **sets).reports[0].why
    assert why.startswith("model.files ./weights.bin: ")
    assert trained(project, **sets)[1] == ALL


def test_a_target_says_which_files_it_reads_beside_its_args(project):
    project.write("model.py", NET)
    (project.folder / "sizes").mkdir()
    project.write("sizes/layers.json", "[4]")
    sets = {"model": "{target: 'model:build', files: [./sizes]}"}
    assert trained(project, **sets)[1] == ALL
    project.write("sizes/layers.json", "[5]")
    assert trained(project, **sets)[1] == ALL
    (project.folder / "sizes/layers.json").unlink()
    with pytest.raises(DataError, match="sizes"):
        planned(project, **sets)


def test_a_folder_that_args_name_is_in_no_key_and_named(project):
    project.write("model.py", f"{NET}\n    def net(cache): return build()\n")
    (project.folder / "cache").mkdir()
    sets = {"model": "{target: 'model:net', args: {cache: ./cache}}"}
    run, _ = trained(project, **sets)
    assert any(text.startswith("model.args: ./cache is a folder") for text in run.notices)
    (project.folder / "cache" / "filled").write_text("x")
    again, computed = trained(project, **sets)
    assert computed == set()
    assert not any("is a folder" in text for text in again.notices)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a package of a version, without pip."""
    place = tmp_path / "site-packages"
    (place / "netpkg_of_test").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(place))

    def install(version):
        (place / "netpkg_of_test" / "__init__.py").write_text(
            "from torch import nn\ndef build(): return nn.Linear(6, 3)\n"
        )
        for old in place.glob("*.dist-info"):
            (old / "METADATA").unlink()
            old.rmdir()
        info = place / f"netpkg_of_test-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: netpkg-of-test\nVersion: {version}\n"
        )

    yield install
    sys.modules.pop("netpkg_of_test", None)


@pytest.mark.parametrize("own_file", [False, True])
def test_another_version_of_a_package_that_the_model_comes_from_is_said(
    project, installed, own_file
):
    installed("1.0")
    project.write("model.py", "from netpkg_of_test import build\n")
    target = "model:build" if own_file else "netpkg_of_test:build"
    sets = {"model": f"{{target: '{target}'}}"}
    run, _ = trained(project, **sets)
    record = run.view.records[run.view.stages[1].key]
    assert record.environment["package netpkg-of-test"] == "1.0"
    installed("2.0")
    again, computed = trained(project, **sets)
    assert computed == set()
    assert any("(netpkg-of-test: 1.0 → 2.0)" in text for text in again.notices)
    assert any("netpkg-of-test: 1.0 → 2.0" in note for note in planned(project, **sets).notes)
    assert not again.view.is_bitwise or all(one.cached for one in again.outcomes)
    with pytest.raises(PreflightFailed, match=r"netpkg-of-test: 1\.0 → 2\.0"):
        BareRun(project.config, **sets, reproducibility="strict")


def test_a_package_of_a_new_metric_makes_no_other_environment_of_the_stages_before(project):
    trained(project)
    project.write(
        "metric.py",
        """
        import torchmetrics

        class M(torchmetrics.MeanMetric):
            def update(self, outputs, target):
                super().update(target.float())
        """,
    )
    metric = "[accuracy, {name: own, target: 'metric:M'}]"
    run, computed = trained(project, metrics__validation=metric)
    assert computed == {"validate"}
    assert run.view.is_bitwise
    assert not any("environment" in text for text in run.notices)


def test_a_file_that_building_a_target_reads_is_named_once_until_files_names_it(project):
    project.write("sizes.json", '{"width": 4}')
    project.write(
        "model.py",
        """
        import json
        from pathlib import Path
        from nets import build

        def net(path=None):
            file = Path(__file__).with_name("sizes.json")
            return build(**json.loads(file.read_text()))
        """,
    )
    project.write("nets.py", NET)
    sets = {"model": "{target: 'model:net'}"}
    run, _ = trained(project, **sets)
    expected = "model: building it read sizes.json, which is in no key: name it in model.files"
    assert any(text.startswith(expected) for text in run.notices)
    again, _ = trained(project, **sets, seed=9)
    assert not any("building it read" in text for text in again.notices)
    for named in ("files: [./sizes.json]", "args: {path: ./sizes.json}"):
        run, _ = trained(project, model=f"{{target: 'model:net', {named}}}")
        assert not any("building it read" in text for text in run.notices)


def test_code_of_targets_inside_args_is_in_the_keys(project):
    """A data set whose argument is a target of another module, and that one's of a third."""
    inner = {"target": "inner:make"}
    args = {"transform": [{"target": "outer:make", "args": {"inside": {"of": inner}}}]}
    nested = Project(project.config.parent, train_data={"target": "blobs:blobs", "args": args})
    for name in ("outer", "inner"):
        nested.write(f"{name}.py", "def make(inside=None): return inside\n")

    def digests():
        config = load_config(nested.config)
        return read_sources(config, open_store("memory://of-nested-targets")).digests

    before = digests()
    assert before["train_data"].keys() == {"blobs.py", "outer.py", "inner.py"}
    nested.write("inner.py", "def make(): return 1\n")
    after = digests()
    assert {name for name in before if before[name] != after[name]} == {"train_data"}


BY_PATH = """
    from importlib.util import module_from_spec, spec_from_file_location
    from pathlib import Path

    def loaded():
        path = Path(__file__).parent / "plugins" / "net.py"
        spec = spec_from_file_location("plugin", path)
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.build()

    def executed():
        space = {}
        exec((Path(__file__).parent / "plugins" / "net.py").read_text(), space)
        return space["build"]()
"""


@pytest.mark.parametrize("how", ["loaded", "executed"])
def test_code_that_is_executed_by_its_path_is_named_and_counts_once_it_is_in_files(project, how):
    project.write("model.py", BY_PATH)
    (project.folder / "plugins").mkdir()
    project.write("plugins/net.py", NET)
    plain = {"model": f"{{target: 'model:{how}'}}"}
    for store in ("./one", "./other"):  # the second reads bytecode that the first has written
        texts = "\n".join(BareRun(project.config, store=store, **plain).notices)
        assert "building it read plugins/net.py, which is in no key" in texts
        assert "read model.py" not in texts
    named = {"model": f"{{target: 'model:{how}', files: [./plugins/net.py]}}"}
    assert "building it read" not in "\n".join(trained(project, **named)[0].notices)
    project.write("plugins/net.py", NET.replace("ReLU", "Tanh"))
    assert planned(project, **named).num_done == 0
