"""Storage that really fails under the real command: it says so, and then ends in the same bytes."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project, call, environment
from support.stores.s3_server import BUCKET

from epochal.data.store.retry import RetryingBackend
from epochal.tasks.computing.watch import EpochWatch

pytestmark = pytest.mark.server

# Some 0.4 MB of weights and 0.7 MB of moments: what is full or limited is so in the middle.
PARTS = {
    "model": {"target": "model:Net", "args": {"width": 8192}},
    "epochs": 4,
    "checkpoint": {"every_updates": 1},
    "sampling": {"policy": "none"},
}


class Door:
    """A way to a server that can be closed and opened: forwards to a port while it is open."""

    def __init__(self, port):
        self.target = port
        self.listening = None
        self.connections = set()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def __enter__(self):
        self.open()
        return self

    def __exit__(self, *_):
        self.close()

    def open(self):
        """From now on connections are forwarded."""
        self.listening = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self._start(self._accept, self.listening)

    def close(self):
        """From now on connections are refused, and those that were there are cut."""
        listening, self.listening = self.listening, None
        if listening is not None:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)  # wakes up who waits in `accept`
            listening.close()
        for one in list(self.connections):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self, listening):
        while self.listening is listening:
            try:
                near, _ = listening.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                near.close()
                continue
            self.connections |= {near, far}
            ends = [
                self._start(self._forward, near, far),
                self._start(self._forward, far, near),
            ]
            self._start(self._end, ends, near, far)

    def _forward(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _end(self, ends, near, far):
        for thread in ends:
            thread.join()
        for one in (near, far):
            one.close()
            self.connections.discard(one)

    @staticmethod
    def _start(work, *arguments):
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        thread.start()
        return thread


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """sha256 of the weights, and the digests of all artifacts, of a run that nothing disturbs."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("unbroken")
        patch.setenv("HOME", str(folder))
        run = BareRun(Project(folder / "project", **PARTS).config)()
        return run.weights, sorted(run.digests.values())


@pytest.fixture
def project(tmp_path, tracker, prefect_api):
    return Project(tmp_path / "project", **PARTS)


def stopped(done, *words):
    """The command ended as one that can go on, and said why."""
    assert done.code == 75, done.err
    for word in (*words, "run the same command to go on"):
        assert word in done.err


def goes_on(project, unbroken, **sets):
    """The same command again ends in the unbroken run's bytes, from what was committed."""
    again = project("train", **sets)
    assert again.code == 0, again.err
    weights, digests = unbroken
    assert again.json["weights_sha256"] == weights
    assert again.stages(cached=True), "nothing was left of the first try"
    store = sets.get("store", f"file://{project.store}")
    assert call("verify", store).code == 0
    if "store" not in sets:
        found = [path.name for path in project.store.glob("stages/*/*") if len(path.stem) == 64]
        assert sorted(name.partition(".")[0] for name in found) == digests
        assert not list(project.store.glob("stages/*/partial/*"))
        assert not list(project.store.glob("tmp/*"))


def at_micro_step(monkeypatch, number, action):
    """Calls `action` before what the command does after that micro-step, over all epochs."""
    original, count = EpochWatch.__call__, [0]

    def watched(self, progress):
        count[0] += 1
        if count[0] == number:
            action()
        original(self, progress)

    monkeypatch.setattr(EpochWatch, "__call__", watched)


def mount(*arguments):
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else None


@pytest.fixture
def small_disk(project):
    """The store on a file system of its own, of 4 MB."""
    project.store.mkdir()
    problem = mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(project.store))
    if problem is not None:
        pytest.skip(f"mounting is not permitted here: {problem}")
    yield project.store
    subprocess.run(["umount", "--lazy", str(project.store)], check=True)


def remount(folder, options):
    """Waits until no file is being written: a commit may be under way."""
    deadline = time.monotonic() + 30
    while (problem := mount("-o", f"remount,{options}", str(folder))) is not None:
        assert time.monotonic() < deadline, problem
        time.sleep(0.01)


def test_a_full_disk_ends_the_run_and_a_larger_one_lets_it_go_on(project, unbroken, small_disk):
    done = project("train")
    stopped(done, str(small_disk), "No space left on device", "free some space")
    assert "epochs to come may need" in done.err  # it was told before
    assert call("verify", f"file://{small_disk}").code == 0
    assert list(small_disk.glob("stages/*/record.json"))
    remount(small_disk, "size=64m")
    goes_on(project, unbroken)


def test_a_disk_without_room_for_two_checkpoints_is_told_before_anything_starts(
    project, small_disk
):
    (small_disk / "ballast").write_bytes(bytes(3 << 20))
    done = project("train")
    assert done.code == 2
    assert "two checkpoints need" in done.err
    assert sorted(path.name for path in small_disk.iterdir()) == ["ballast", "fingerprints", "tmp"]


def test_a_store_that_becomes_read_only_ends_the_run(project, unbroken, small_disk, monkeypatch):
    remount(small_disk, "size=64m")
    with monkeypatch.context() as patch:
        at_micro_step(patch, 17, lambda: remount(small_disk, "ro"))
        stopped(project("train"), str(small_disk), "Read-only file system")
    assert call("verify", f"file://{small_disk}").code == 0
    remount(small_disk, "rw")
    goes_on(project, unbroken)


@pytest.mark.slow
def test_a_limit_of_file_sizes_ends_the_run_and_a_higher_one_lets_it_go_on(project, unbroken):
    # 512 bytes to a block: enough for the weights, not for the optimizer's moments.
    epochal = f"exec {sys.executable} -m epochal.flows.cli train {project.config}"
    done = subprocess.run(
        ["/bin/sh", "-c", f"ulimit -f 1200; {epochal}"],
        cwd=project.folder, capture_output=True, text=True, check=False,
        env={**os.environ, "MLFLOW_TRACKING_URI": "http://127.0.0.1:1"},
    )  # fmt: skip
    assert done.returncode == 75, done.stderr
    assert "File too large" in done.stderr
    assert "ulimit -f" in done.stderr
    assert "for a checkpoint" in done.stderr
    goes_on(project, unbroken)


@pytest.fixture
def door(s3_endpoint, monkeypatch):
    """The way to the S3 server, in its address in the environment."""
    with Door(urlsplit(s3_endpoint).port) as made:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{made.port}")
        yield made


def bucket(request):
    return f"s3://{BUCKET}/{request.node.name[:40]}/store"


@pytest.mark.slow
def test_an_s3_server_that_stays_away_ends_the_run_and_the_next_goes_on(
    project, unbroken, door, request, monkeypatch
):
    store = bucket(request)
    with monkeypatch.context() as patch, environment(EPOCHAL_STORE_PATIENCE_SECONDS="0.5"):
        at_micro_step(patch, 17, door.close)
        stopped(project("train", store=store), store, "check AWS_ENDPOINT_URL")
    door.open()
    goes_on(project, unbroken, store=store)


def test_a_run_goes_through_an_s3_server_that_is_away_for_a_while(
    project, unbroken, door, request, monkeypatch
):
    store = bucket(request)
    tell = RetryingBackend._tell

    def told(self, cause):
        tell(self, cause)
        if door.listening is None:
            door.open()  # away until the run has said that it waits

    monkeypatch.setattr(RetryingBackend, "_tell", told)
    at_micro_step(monkeypatch, 17, door.close)
    done = project("train", store=store)
    assert done.code == 0, done.err
    assert done.json["weights_sha256"] == unbroken[0]
    assert "the store does not answer" in done.err
    assert call("verify", store).code == 0
