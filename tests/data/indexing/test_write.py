"""Items of an iterable as shards: what is read back is what was given, also after a kill."""

import os
import signal
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from epochal.data import datasets
from epochal.data.errors import DataError
from epochal.data.indexing.write import PROGRESS_NAME, Writer

tar_shards = partial(datasets.tar_shards, dtype="uint8")
"""Pixels as they are stored, to be compared to the last bit."""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EPOCHAL_CACHE", str(tmp_path / "cache"))


def write(out, items, *, source="one", shard_bytes=12_000, told=None):
    return Writer(str(out), source=source, name="items", shard_bytes=shard_bytes).write(
        items, told=told
    )


def stream(count=30, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for number in range(count):
        yield torch.rand(4, 5, generator=generator), number % 3


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def same(one, other):
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        return one.numel() == 0 or bits(one).equal(bits(other))
    if isinstance(one, np.ndarray | np.generic):
        return one.dtype == other.dtype and np.asarray(one).tobytes() == other.tobytes()
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and all(map(same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)


def test_items_come_back_as_they_were_with_their_labels(tmp_path):
    done = write(tmp_path / "out", stream())
    data = tar_shards(tmp_path / "out")
    assert len(data) == done.samples == 30
    assert len(list((tmp_path / "out").glob("*.tar"))) == done.shards > 2
    assert all(same(item, data[place]) for place, item in enumerate(stream()))
    assert data.targets.tolist() == [number % 3 for number in range(30)]


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 80), 1 << 80),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.lists(st.one_of(st.integers(), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.text(max_size=3), st.floats(), max_size=2),
    st.sampled_from(
        [torch.float32, torch.bfloat16, torch.float64, torch.int16, torch.uint8, torch.bool,
         torch.complex64, torch.float16, torch.float8_e4m3fn]
    ).flatmap(
        lambda dtype: st.lists(st.integers(0, 3), max_size=2).map(
            lambda shape: torch.ones(shape).mul(3).to(dtype)
        )
    ),
    st.sampled_from([np.float32(0.1), np.array([[1, 2]], dtype=">i4"), np.array("äb")]),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.dictionaries(st.text(min_size=1, max_size=6), VALUES, min_size=1, max_size=3),
        st.lists(VALUES, min_size=1, max_size=3),
        st.lists(VALUES, min_size=1, max_size=3).map(tuple),
    )
)
def test_any_item_comes_back_bit_by_bit(tmp_path_factory, item):
    out = tmp_path_factory.mktemp("out")
    write(out, [item, item])
    data = tar_shards(out)
    assert same(item, data[0])
    assert same(item, data[1])


def test_an_image_comes_back_as_its_pixels(tmp_path):
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    write(tmp_path / "out", [{"image": Image.fromarray(pixels), "label": 1}])
    item = tar_shards(tmp_path / "out")[0]
    assert item["image"].equal(torch.from_numpy(pixels).permute(2, 0, 1))
    assert item["label"] == 1


@pytest.mark.parametrize("stop", [0, 1, 7, 23, 29])
def test_after_an_end_in_the_middle_the_result_is_that_of_an_unbroken_run(tmp_path, stop):
    write(tmp_path / "whole", stream())

    def broken():
        for number, item in enumerate(stream()):
            if number == stop:
                raise RuntimeError("the network is down")
            yield item

    with pytest.raises(DataError, match=f"reading item {stop} raised RuntimeError: the network"):
        write(tmp_path / "out", broken())
    kept = len(list((tmp_path / "out").glob("*.tar")))
    assert write(tmp_path / "out", stream()).kept == kept
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert len(tar_shards(tmp_path / "out")) == 30


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_after_a_kill_the_result_is_that_of_an_unbroken_run(tmp_path, moment):
    write(tmp_path / "whole", stream())
    pid = os.fork()
    if pid == 0:

        def end(_, shards):
            if shards == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        write(tmp_path / "out", stream(), told=end)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    assert write(tmp_path / "out", stream()).kept == moment
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_a_shard_that_was_lost_or_cut_is_written_again(tmp_path):
    write(tmp_path / "whole", stream())
    with pytest.raises(DataError):
        write(tmp_path / "out", _then_raise(stream(), 20))
    shards = sorted((tmp_path / "out").glob("*.tar"))
    shards[-1].write_bytes(shards[-1].read_bytes()[:-512])
    assert write(tmp_path / "out", stream()).kept == len(shards) - 1
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def _then_raise(items, count):
    for number, item in enumerate(items):
        if number == count:
            raise RuntimeError
        yield item


@pytest.mark.parametrize("other", [stream(seed=1), stream(5)], ids=["others", "fewer"])
def test_an_iterable_that_gives_other_items_at_the_second_start_is_refused(tmp_path, other):
    with pytest.raises(DataError):
        write(tmp_path / "out", _then_raise(stream(), 20))
    before = files(tmp_path / "out")
    with pytest.raises(DataError, match="another sequence of items than before"):
        write(tmp_path / "out", other)
    assert files(tmp_path / "out") == before


def test_what_is_complete_is_not_written_again_and_nothing_else_is_overwritten(tmp_path):
    out = tmp_path / "out"
    first = write(out, stream())
    again = write(out, _then_raise(stream(), 0))
    assert (again.samples, again.kept) == (first.samples, first.shards)
    with pytest.raises(DataError, match="--out"):
        write(out, stream(), source="another")
    (out / "index.epochal.arrow").unlink()
    with pytest.raises(DataError, match="--out"):
        write(out, stream())
    (tmp_path / "begun").mkdir()
    with pytest.raises(DataError):
        write(tmp_path / "begun", _then_raise(stream(), 20))
    assert (tmp_path / "begun" / PROGRESS_NAME).exists()
    with pytest.raises(DataError, match="the beginning of something else"):
        write(tmp_path / "begun", stream(), source="another")


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([], "gave no item"),
        ([object()], "item 0: '0' holds a builtins.object"),
        ([(1, 2), (1, 2, 3)], "item 1 has the parts"),
        ([(1, 2), (1, torch.ones(1))], "item 1 has the parts"),
        ([{1: 2}], "texts as keys"),
        ([{}], "item 0 is empty"),
        ([((1, 2), 3)], "holds a builtins.tuple"),
        ([np.array([object()])], "array of object"),
    ],
)
def test_what_no_shard_can_hold_is_named(tmp_path, items, text):
    with pytest.raises(DataError, match=text):
        write(tmp_path / "out", items)


def test_shards_on_another_storage_are_read_back_from_there(s3_endpoint):
    out = "s3://epochal-tests/written"
    write(out, stream())
    data = tar_shards(out)
    assert all(same(item, data[place]) for place, item in enumerate(stream()))
    assert write(out, stream()).kept > 2
