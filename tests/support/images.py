"""Encoded pictures, and files put below any address."""

import io

import fsspec
import numpy as np
from PIL import Image


def picture(seed, height=12, width=16, mode="RGB"):
    """A smooth image of its own for each seed."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def put_files(root, files):
    """Writes name → bytes below `root`, a folder or an address."""
    target, path = fsspec.core.url_to_fs(str(root))
    for name, data in files.items():
        place = f"{path.rstrip('/')}/{name}"
        if not str(root).startswith("s3://"):
            target.makedirs(place.rpartition("/")[0], exist_ok=True)
        target.pipe_file(place, data)


def in_forks(function, count):
    """What `function(number)` gives in each of `count` processes forked from this one, by number.

    It must be bytes.
    """
    import os

    pipes = []
    for number in range(count):
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            code = 1
            try:
                os.close(reading)
                with os.fdopen(writing, "wb") as stream:
                    stream.write(function(number))
                code = 0
            finally:
                os._exit(code)
        os.close(writing)
        pipes.append((pid, reading))
    answers = []
    for pid, reading in pipes:
        with os.fdopen(reading, "rb") as stream:
            answers.append(stream.read())
        assert os.waitpid(pid, 0)[1] == 0
    return answers
