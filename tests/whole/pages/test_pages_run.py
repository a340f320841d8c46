"""The commands of the tutorial and of the how-to pages are run, in the order of the page.

`console` blocks are run; `sh` blocks are commands of other places (a cluster, a server that stays),
whose form tests/rules/test_docs.py checks.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from support.pages import DOCS, README, ROOT, blocks, commands, files

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.timeout(1800)]
PAGES = [name for name in DOCS if name.startswith("how-to/") and commands(DOCS[name], "console")]
MAY_BE_KILLED = "timeout --signal=KILL"
KILLED = (137, -9)
DIGEST = re.compile(r"\b[0-9a-f]{64}\b")
RUNS_OF_OTHERS = re.compile(r"\d+\.\d+(e-?\d+)?|\b[0-9a-f]{8,64}\b|file://\S+")
"""What differs from machine to machine: decimals, digests, paths."""


@pytest.fixture(scope="module")
def machine(tmp_path_factory, prefect_server, empty_mlflow):
    """The environment of a person who has Epochal, a Prefect server and an MLflow database."""
    home = tmp_path_factory.mktemp("home")
    shutil.copyfile(empty_mlflow, home / "mlflow.db")
    return {
        **os.environ,
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PREFECT_API_URL": prefect_server[0],
        "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}",
        "COLUMNS": "80",
        "OMP_NUM_THREADS": "1",  # two of torch's threads beside other work take turns
    }


def run(command, folder, machine):
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder, env=machine, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def plain(line):
    """A line without what differs from machine to machine, and without its spaces."""
    return "".join(RUNS_OF_OTHERS.sub("#", line).split())


def like(shown, printed):
    """Whether a line that was printed is the one that is shown; `…` stands for anything."""
    pattern = ".*".join(map(re.escape, plain(shown).split("…")))
    return re.fullmatch(pattern, plain(printed)) is not None


def follow(page, folder, machine):
    """Runs a page in the folder. The lines that it shows are printed, in that order.

    Digests that are equal on the page are equal here. Behind a command that was killed only they
    are compared: how far it came is the clock's.
    """
    here, was_killed = {}, False
    for command, shown in commands(page, "console"):
        if command.startswith("cd "):
            folder /= command.removeprefix("cd ")
            continue
        told_killed = shown[:1] == ["Killed"]
        line = f"{MAY_BE_KILLED} 10 {command}" if told_killed else command
        done = run(line, folder, machine)
        killed = told_killed or command.startswith(MAY_BE_KILLED)
        assert done.returncode == 0 or (killed and done.returncode in KILLED), done.stdout
        printed = iter(done.stdout.splitlines())
        for line in [] if killed else shown:
            if not line.strip(" …") or (was_killed and not DIGEST.search(line)):
                continue
            found = next((one for one in printed if like(line, one)), None)
            assert found is not None, f"{command}: {line!r} is not in\n{done.stdout}"
            for theirs, ours in zip(DIGEST.findall(line), DIGEST.findall(found), strict=True):
                assert here.setdefault(theirs, ours) == ours
        was_killed = killed


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory, machine):
    """The folder of who has followed the tutorial."""
    folder = tmp_path_factory.mktemp("tutorial")
    for name, text in files(DOCS["tutorial.md"]).items():
        (folder / name).write_text(text)
    follow(DOCS["tutorial.md"], folder, machine)
    return folder


def test_the_tutorial_does_what_it_says(tutorial, machine):
    digests = {
        run(
            f"sha256sum {store}/stages/*/*.safetensors | cut -c1-64 | sort", tutorial, machine
        ).stdout
        for store in ("store", "other")
    }
    assert len(digests) == 1
    found = run("epochal samples points --store ./store --suspects 40", tutorial, machine).stdout
    ids = [int(line.split()[0]) for line in found.splitlines()[1:41]]
    assert len(set(ids) & set(range(40))) >= 25


def test_the_readmes_first_screen_does_what_it_says(tmp_path, machine):
    shutil.copytree(
        ROOT / "examples" / "digits",
        tmp_path / "examples" / "digits",
        ignore=shutil.ignore_patterns("store"),
    )
    follow(README, tmp_path, machine)


def test_the_first_hour_does_what_it_says_and_finds_the_images_in_wrong_folders(tmp_path, machine):
    for name, text in files(DOCS["first-hour.md"]).items():
        (tmp_path / name).write_text(text)
    follow(DOCS["first-hour.md"], tmp_path, machine)
    found = run(
        "epochal samples photos.yaml --set epochs=8 --suspects 3 --json", tmp_path, machine
    ).stdout
    wrong = {"square/30.jpg", "square/120.jpg", "square/333.jpg"}
    assert {one for one in wrong if one in found.splitlines()[-1]} == wrong


@pytest.mark.parametrize("name", PAGES)
def test_a_how_to_page_does_what_it_says(name, tutorial, tmp_path, machine, request):
    environment = dict(machine)
    if name == "how-to/s3.md":
        request.getfixturevalue("s3_endpoint")
        boto3.client("s3").create_bucket(Bucket="my-bucket")
        environment |= {key: os.environ[key] for key in os.environ if key.startswith("AWS_")}
    folder = tmp_path / "points"
    shutil.copytree(tutorial, folder)
    follow(DOCS[name], folder, environment)


def test_the_cells_of_the_notebook_page_run(tutorial, tmp_path, machine):
    folder = tmp_path / "points"
    shutil.copytree(tutorial, folder)
    code = "\n".join(blocks(DOCS["how-to/notebook.md"], "python"))
    code += "\nprint(len(losses), suspects.index.isin(range(40)).sum())\nprint(result)\n"
    (folder / "cells.py").write_text(code)
    done = run(f"{sys.executable} cells.py", folder, machine)
    assert done.returncode == 0, done.stdout
    samples, wrong = re.search(r"^(\d+) (\d+)$", done.stdout, flags=re.MULTILINE).groups()
    assert int(samples) == 2000
    assert int(wrong) >= 25
    assert "run points@" in done.stdout


def test_exported_weights_load_as_the_page_says(tutorial, machine):
    code = "\n".join(blocks(DOCS["how-to/export.md"], "python"))
    (tutorial / "load.py").write_text(code)
    done = run(f"{sys.executable} load.py", tutorial, machine)
    assert done.returncode == 0, done.stdout
