"""Real file systems that lose their power: what each has on its device, mounted anew.

A run writes to a file system in an image. After some of its system calls the image is copied as it
is then: what the file system keeps in memory is not in the copy, so that mounting it is what a
machine does that starts again. Needs root and loop devices, and is left out without them.
"""

import os
import posix
import shutil
import subprocess
from contextlib import contextmanager

import pytest
from support.runs.bare_run import BareRun
from support.runs.forked_runs import commit_at_once, in_a_child

from epochal.data.store.local_disk import SystemDisk, use_disk
from epochal.data.store.open import open_store
from epochal.data.testing.crash import promised
from epochal.data.testing.plan import FaultPlan
from epochal.data.testing.recording import recorded
from epochal.tasks.computing.saver import MidEpochSaver
from epochal.tasks.upkeep import verify_store

pytestmark = pytest.mark.slow

# Name → what makes it, its size in MiB (the least that it takes), and how it is mounted.
FILE_SYSTEMS = {
    "ext4": (("mkfs.ext4", "-q"), 32, "loop"),
    "ext4, writeback": (("mkfs.ext4", "-q"), 32, "loop,data=writeback"),
    "xfs": (("mkfs.xfs", "-q"), 300, "loop,nouuid"),  # copies have the first one's UUID
    "btrfs": (("mkfs.btrfs", "-q"), 128, "loop"),
}
EVERY = 35
"""System calls from one copy to the next."""


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False)


@contextmanager
def mounted(image, folder, options):
    folder.mkdir(exist_ok=True)
    done = run("mount", "-o", options, str(image), str(folder))
    if done.returncode:
        pytest.skip(f"{image.name} cannot be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        assert run("umount", str(folder)).returncode == 0


class Copying(SystemDisk):
    """Keeps what is on the device after every so many calls. changes: those recorded so far."""

    def __init__(self, image, every):
        self.image, self.every = image, every
        self.calls, self.copies = 0, []
        self.changes = []

    def _called(self):
        self.calls += 1
        if self.calls % self.every == 0:
            copy = self.image.with_name(f"copy-{self.calls}")
            # No sync and no freeze before it: they would bring what is in memory to the device.
            subprocess.run(["cp", "--sparse=always", str(self.image), str(copy)], check=True)
            self.copies.append((copy, len(self.changes)))

    def write(self, path, data):
        super().write(path, data)
        self._called()

    def copy(self, source, path):
        super().copy(source, path)
        self._called()

    def sync(self, path):
        descriptor = os.open(path, os.O_RDONLY)
        posix.fsync(descriptor)  # `os.fsync` does nothing in the tests' own process
        os.close(descriptor)
        self._called()

    def link(self, source, target):
        super().link(source, target)
        self._called()

    def unlink(self, path):
        super().unlink(path)
        self._called()

    def make_folder(self, path):
        super().make_folder(path)
        self._called()


class Forgetful(Copying):
    """Syncs nothing: the mistake that must be seen."""

    def sync(self, path):
        self._called()


@pytest.fixture(params=FILE_SYSTEMS)
def image(request, tmp_path):
    make, size, options = FILE_SYSTEMS[request.param]
    if os.getuid() or shutil.which(make[0]) is None:
        pytest.skip(f"{make[0]} and root's rights are needed")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(size << 20)
    assert run(*make, str(image)).returncode == 0
    yield image, options
    for path in tmp_path.glob("copy-*"):
        path.unlink()
    image.unlink()


def cut_off(proof, image, options, kind):
    """A whole run on the image, which is copied meanwhile: what it has done, and the copies."""
    MidEpochSaver.is_due = commit_at_once
    copying = kind(image, EVERY)
    with mounted(image, image.with_name("disk"), options) as disk:
        before = use_disk(copying)
        try:
            with recorded(disk) as recording:
                copying.changes = recording.changes
                BareRun(proof.config, store=f"file://{disk}/store")()
        finally:
            use_disk(before)
    return recording, copying.copies


def broken(recording, point, folder):
    """What of the store's word does not hold on a copy."""
    wrong = []
    for path, allowed in promised(recording, point).items():
        place = folder / path
        found = place.read_bytes() if place.is_file() else None
        if found not in allowed:
            wrong.append(f"{path}: {'not there' if found is None else f'{len(found)} bytes'}")
    return wrong + list(verify_store(open_store(f"file://{folder}/store")).problems)


def test_a_run_goes_on_from_what_the_device_had(image, proof, tmp_path):
    path, options = image

    def do():
        recording, copies = cut_off(proof, path, options, Copying)
        found = []
        for copy, point in copies:
            with mounted(copy, tmp_path / "again", options) as folder:
                found += [f"after {point}: {one}" for one in broken(recording, point, folder)]
                life = proof.life(f"file://{folder}/store", FaultPlan())
                if life.found != proof.unbroken.found:
                    found.append(f"after {point} changes: the next life ends in other bytes")
        return [len(copies), found]

    copies, wrong = in_a_child(tmp_path, do)
    assert wrong == []
    assert copies > 6


def test_a_store_that_syncs_nothing_is_seen_to_lose(image, proof, tmp_path):
    path, options = image

    def do():
        recording, copies = cut_off(proof, path, options, Forgetful)
        found = []
        for copy, point in copies[-2:]:
            with mounted(copy, tmp_path / "again", options) as folder:
                found += broken(recording, point, folder)
        return found

    assert in_a_child(tmp_path, do) != []
