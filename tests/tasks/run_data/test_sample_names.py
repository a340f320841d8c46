"""Classes and files of samples are shown wherever samples are, where the data set has them."""

import pytest
from PIL import Image
from support.runs.bare_run import BareRun
from support.runs.project import Project, call

FOLDERS = """
    from blobs import blobs
    from torch import nn
    from torch.utils.data import Dataset, Subset

    class Pictures(Dataset):
        classes = ["cat", "dog$x$", "[bird]"]

        def __init__(self, split):
            x, y = blobs(split).tensors
            self.x, self.targets = x.reshape(-1, 1, 2, 3), y.tolist()
            self.samples = [
                (f"/data/{self.classes[label]}/{row} a.png", label)
                for row, label in enumerate(self.targets)
            ]

        def __len__(self):
            return len(self.targets)

        def __getitem__(self, row):
            return self.x[row], self.targets[row]

    def pictures(split):
        return Subset(Pictures(split), range(10, 40))

    def Net():
        return nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
"""


@pytest.fixture
def project(tmp_path, home):
    made = Project(
        tmp_path / "project",
        epochs=1,
        loader={"batch_size": 8},
        model={"target": "folders:Net"},
        train_data={"target": "folders:pictures", "args": {"split": "train"}},
        validation_data={"target": "folders:pictures", "args": {"split": "validation"}},
    )
    made.write("folders.py", FOLDERS)
    BareRun(made.config)()
    return made


def test_samples_name_class_and_file_of_each(project, tmp_path):
    samples = call("samples", str(project.config), "--hardest", "4", "--json").json["samples"]
    for sample in samples:
        name = ["cat", "dog$x$", "[bird]"][sample["label"]]
        assert sample["class"] == name
        assert sample["file"] == f"/data/{name}/{sample['sample_id'] + 10} a.png"
    sheet = tmp_path / "sheet.png"
    shown = call("samples", str(project.config), "--hardest", "4", "--pictures", str(sheet))
    assert shown.code == 0, shown.err
    assert samples[0]["file"] in shown.out
    assert shown.out.splitlines()[0].split()[:3] == ["sample_id", "label", "class"]
    with Image.open(sheet) as image:
        assert image.size[0] > 100


def test_by_its_name_alone_a_run_shows_classes_and_runs_no_code(project):
    (project.folder / "folders.py").unlink()
    done = call("samples", f"{project.store}/blobs", "--json")
    assert done.code == 0, done.err
    assert {sample["class"] for sample in done.json["samples"]} <= {"cat", "dog$x$", "[bird]"}
    assert "file" not in done.json["samples"][0]


def test_a_data_set_that_cannot_be_opened_any_more_is_a_note(project):
    (project.folder / "folders.py").write_text("raise RuntimeError('gone')")
    done = call("samples", str(project.config), "--json")
    assert done.code == 0, done.err
    assert "the files of samples are not shown: " in done.err
    assert "class" in done.json["samples"][0]


def test_the_report_names_class_and_file_where_it_draws_no_pictures(project, tmp_path):
    page = tmp_path / "page.html"
    source = project.folder / "folders.py"
    source.write_text(source.read_text().replace("self.x[row], ", "self.x[row].reshape(-1), "))
    assert call("report", str(project.config), "--out", str(page)).code == 0
    text = page.read_text()
    assert "No pictures" in text
    assert "<td>dog$x$</td>" in text
    assert "/data/dog$x$/" in text
