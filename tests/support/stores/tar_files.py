"""Tar shards as other programs write them, and files in them."""

import io
import tarfile

import numpy as np
from PIL import Image


def picture(value, *, size=(5, 4), kind="PNG", mode="RGB"):
    """The bytes of an image of one colour."""
    stream = io.BytesIO()
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    Image.fromarray(np.full(shape, value, dtype=np.uint8), mode=mode if mode != "P" else "L").save(
        stream, kind
    )
    return stream.getvalue()


def write_tar(path, members, *, form=tarfile.GNU_FORMAT):
    """An archive of these members: (name, bytes), or a TarInfo."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            archive.addfile(info, io.BytesIO(member[1]))
    return path


def write_shards(folder, *, shards=3, samples=10, classes=3):
    """Shards `s-000.tar` …: sample k is a picture of the colour k, of the class k % classes."""
    for shard in range(shards):
        members = []
        for number in range(shard * samples, (shard + 1) * samples):
            members += [
                (f"{number:06d}.png", picture(number)),
                (f"{number:06d}.cls", str(number % classes).encode()),
                (f"{number:06d}.json", f'{{"number": {number}}}'.encode()),
            ]
        write_tar(folder / f"s-{shard:03d}.tar", members)
    return folder
