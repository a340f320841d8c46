"""Images in Parquet files: the hub's layout, row groups as blocks, errors by file and row."""

import json
import pickle
import sys
import threading
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.images import encoded, in_forks, picture, put_files

from epochal.data import datasets
from epochal.data.errors import DataError
from epochal.data.files.images import Decoding
from epochal.data.files.reading import Reader
from epochal.data.inspection.describe import describe
from epochal.data.inspection.labels import targets_of

parquet_images = partial(datasets.parquet_images, dtype="uint8")
"""Pixels as they are stored, to be compared to the last bit."""

COUNT = 25
IMAGES = [encoded(picture(seed), "JPEG" if seed % 2 else "PNG") for seed in range(COUNT)]
LABELS = [seed % 3 for seed in range(COUNT)]
HUB = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
NAMES = ["cat", "dog", "emu"]


def hub_metadata(names):
    features = {
        "image": {"_type": "Image"},
        "label": {"names": names, "_type": "ClassLabel"},
    }
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def hub_table(first=0, end=COUNT, *, names=NAMES, labels=LABELS, images=IMAGES):
    image = [{"bytes": data, "path": "x.jpg"} for data in images[first:end]]
    table = pa.table({"image": pa.array(image, HUB), "label": pa.array(labels[first:end])})
    return table.replace_schema_metadata(hub_metadata(names))


def parquet(table, **options):
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **({"row_group_size": 4} | options))
    return sink.getvalue().to_pybytes()


FILES = {
    "data/train-00000-of-00002.parquet": parquet(hub_table(0, 13)),
    "data/train-00001-of-00002.parquet": parquet(hub_table(13)),
}


@pytest.fixture
def root(tmp_path):
    put_files(tmp_path / "set", FILES)
    return tmp_path / "set"


def wanted(seed):
    decoding = Decoding()
    return decoding.tensor(decoding.image(IMAGES[seed], ""))


def pixels(dataset, positions=None):
    positions = range(len(dataset)) if positions is None else positions
    return b"".join(image.numpy().tobytes() for image, _ in dataset.__getitems__(positions))


def test_items_are_the_same_on_every_storage(store_url):
    put_files(store_url, FILES)
    dataset = parquet_images(store_url)
    assert (len(dataset), dataset.classes) == (COUNT, NAMES)
    assert (dataset.targets.dtype, dataset.targets.tolist()) == (np.int64, LABELS)
    for position in (0, 12, 13, 24):
        image, label = dataset[position]
        assert image.equal(wanted(position))
        assert label == LABELS[position]
    chosen = [24, 0, 7, 0, 13]
    items = dataset.__getitems__(chosen)
    assert [label for _, label in items] == [LABELS[position] for position in chosen]
    assert all(item[0].equal(wanted(at)) for item, at in zip(items, chosen, strict=True))
    assert dataset.path_of(14) == "data/train-00001-of-00002.parquet row 1"


@pytest.mark.parametrize("pattern", ["data", "data/train-*.parquet", "d*/*", "**/*.parquet"])
def test_a_folder_and_a_pattern_name_files(store_url, pattern):
    put_files(store_url, FILES)
    dataset = parquet_images(f"{store_url}/{pattern}")
    assert dataset.targets.tolist() == LABELS
    assert pixels(dataset) == pixels(parquet_images(store_url))


def test_one_file_is_named_by_itself(store_url):
    put_files(store_url, FILES)
    dataset = parquet_images(f"{store_url}/data/train-00001-of-00002.parquet")
    assert dataset.targets.tolist() == LABELS[13:]
    assert dataset[0][0].equal(wanted(13))


def test_the_fingerprint_is_the_same_on_every_storage(root, s3_endpoint):
    found = {parquet_images(str(root)).fingerprint()}
    for other in ("memory://parquet-print", "s3://epochal-tests/parquet-print"):
        put_files(other, FILES)
        found.add(parquet_images(other).fingerprint())
    assert len(found) == 1


def one_file(folder, table, **options):
    put_files(folder, {"1.parquet": parquet(table, **options)})
    return str(folder / "1.parquet")


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "zstd"},
        {"compression": "none", "use_dictionary": False},
        {"data_page_version": "2.0"},
        {"row_group_size": 1},
        {"row_group_size": 100, "data_page_size": 500},
        {"column_encoding": "DELTA_LENGTH_BYTE_ARRAY", "use_dictionary": False},
    ],
    ids=str,
)
def test_every_way_of_writing_gives_the_same_items(root, tmp_path, options):
    encoding = options.get("column_encoding")
    options = options | ({"column_encoding": {"image.bytes": encoding}} if encoding else {})
    dataset = parquet_images(one_file(tmp_path, hub_table(), **options))
    assert pixels(dataset) == pixels(parquet_images(str(root)))
    assert dataset.targets.tolist() == LABELS


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()], ids=str)
def test_plain_bytes_are_images(tmp_path, kind):
    table = pa.table({"picture": pa.array(IMAGES, kind), "y": pa.array(LABELS, pa.int8())})
    dataset = parquet_images(one_file(tmp_path, table), image="picture", label="y")
    assert dataset[3][0].equal(wanted(3))
    assert dataset.targets.tolist() == LABELS
    assert not hasattr(dataset, "classes")


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str
)
def test_texts_are_classes_by_name(tmp_path, kind):
    texts = pa.array([NAMES[2 - label] for label in LABELS]).cast(kind)
    table = pa.table({"image": pa.array(IMAGES, pa.binary()), "label": texts})
    dataset = parquet_images(one_file(tmp_path, table))
    assert dataset.classes == NAMES
    assert dataset.targets.tolist() == [2 - label for label in LABELS]


def test_blocks_are_the_row_groups(root):
    dataset = parquet_images(str(root))
    assert dataset.blocks.tolist() == [0, 4, 8, 12, 13, 17, 21, 25]
    dataset.will_read([6, 0, 3])
    assert dataset[21][0].equal(wanted(21))


@given(part=st.sampled_from(["train", "validation"]), seed=st.integers(0, 50))
def test_blocks_of_a_part_hold_its_samples_by_row_group(tmp_path_factory, part, seed):
    root = tmp_path_factory.getbasetemp() / "parquet-split"
    if not root.is_dir():
        put_files(root, FILES)
    dataset = parquet_images(str(root), split={"part": part, "fraction": 0.3, "seed": seed})
    whole = parquet_images(str(root))
    groups = [
        {(whole.blocks <= row).sum() for row in dataset._rows_N[first:end].tolist()}
        for first, end in zip(dataset.blocks[:-1], dataset.blocks[1:], strict=True)
    ]
    assert dataset.blocks[0] == 0
    assert dataset.blocks[-1] == len(dataset)
    assert all(len(group) == 1 for group in groups)
    assert len(set.union(*groups)) == len(groups)
    assert dataset.targets.tolist() == [LABELS[row] for row in dataset._rows_N.tolist()]


def test_a_batch_reads_each_row_group_once_and_no_other(root, monkeypatch):
    asked = []
    read = Reader.read

    def noted(self, pieces):
        asked.extend(pieces)
        return read(self, pieces)

    dataset = parquet_images(str(root))
    monkeypatch.setattr(Reader, "read", noted)
    dataset.__getitems__([0, 14, 3, 1, 16])
    assert len(asked) == 2
    _ = dataset[2]
    assert len(asked) == 2
    _ = dataset[24]
    assert len(asked) == 3


def test_row_groups_that_are_kept_are_bounded(root):
    dataset = parquet_images(str(root))
    groups = dataset._groups
    size = max(groups.get([group])[0].nbytes for group in range(7))
    groups._kept_bytes = 2 * size
    groups._mine = type(groups._mine)(2 * size)
    for position in [*range(COUNT), *range(COUNT)]:
        assert dataset[position][1] == LABELS[position]
        kept = [future.result().nbytes for future in groups._mine.futures.values()]
        assert sum(kept) == groups._mine._held <= 2 * size


def test_threads_read_the_same(root):
    dataset = parquet_images(str(root))
    dataset._groups._kept_bytes = 1
    dataset._groups._mine = type(dataset._groups._mine)(1)
    wrong = []

    def read(seed):
        wrong.extend(
            position
            for position in np.random.default_rng(seed).permutation(COUNT).tolist()
            if not dataset[position][0].equal(wanted(position))
        )

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_forked_processes_and_copies_read_the_same(root, s3_endpoint):
    put_files("s3://epochal-tests/parquet-forks", FILES)
    alone = b"".join(wanted(seed).numpy().tobytes() for seed in range(COUNT))
    for place in (str(root), "s3://epochal-tests/parquet-forks"):
        dataset = parquet_images(place)
        dataset.will_read(range(3))
        assert pixels(dataset, [5]) == wanted(5).numpy().tobytes()
        assert in_forks(lambda _, its=dataset: pixels(its), 4) == [alone] * 4
        assert pixels(pickle.loads(pickle.dumps(dataset))) == alone
        assert dataset.thread_safe
        assert dataset.unread


@pytest.mark.parametrize("change", ["image", "label", "order", "names"])
def test_another_content_is_another_fingerprint_and_stamp(tmp_path, change):
    def of(table):
        dataset = parquet_images(one_file(tmp_path, table, compression="none"))
        return dataset.fingerprint(), dataset.stamp()

    images = list(IMAGES)
    images[20] = images[20][:-1] + bytes([images[20][-1] ^ 1])
    labels = [*LABELS[:-1], 2]
    others = {
        "image": {"images": images},
        "label": {"labels": labels},
        "order": {"images": IMAGES[::-1], "labels": LABELS[::-1]},
        "names": {"names": NAMES[::-1]},
    }
    before = of(hub_table())
    assert of(hub_table())[0] == before[0]
    after = of(hub_table(**others[change]))
    assert after[0] != before[0]
    assert after[1] != before[1]


@pytest.mark.parametrize(
    "more",
    [{"mode": "L"}, {"resize": [4, 4]}, {"dtype": "float32"}, {"split": {"part": "train"}}],
    ids=str,
)
def test_what_is_made_of_the_rows_is_in_the_fingerprint(root, more):
    assert (
        parquet_images(str(root), **more).fingerprint() != parquet_images(str(root)).fingerprint()
    )


def test_arguments_make_the_items(root):
    image, _ = parquet_images(str(root), mode="L", resize=[4, 5], dtype="float32")[0]
    assert tuple(image.shape) == (1, 4, 5)
    assert image.max() <= 1
    assert parquet_images(str(root)).item_at_size(0, 7, 8)[0].shape == (3, 7, 8)
    assert parquet_images(str(root), transform=lambda one: one.size)[3] == ((16, 12), 0)


def test_a_position_outside_is_an_index_error(root):
    dataset = parquet_images(str(root))
    assert dataset[-1][1] == LABELS[-1]
    with pytest.raises(IndexError):
        dataset[COUNT]


def test_it_is_known_without_reading_every_item(root):
    dataset = parquet_images(str(root))
    assert describe(dataset, name="train_data").num_samples == COUNT
    assert targets_of(dataset, COUNT).tolist() == LABELS


def test_files_of_several_parts_are_refused(root):
    put_files(root, {"data/test-00000-of-00001.parquet": parquet(hub_table())})
    with pytest.raises(DataError, match=r"parts test, train"):
        parquet_images(str(root))
    assert len(parquet_images(f"{root}/data/train-*.parquet")) == COUNT


@pytest.mark.parametrize("path", ["none", "none.parquet", "data/none-*.parquet"])
def test_what_is_not_there_is_named(store_url, path):
    put_files(store_url, FILES)
    with pytest.raises(DataError, match=path.replace("*", r"\*")):
        parquet_images(f"{store_url}/{path}")


@pytest.mark.parametrize(
    ("table", "arguments", "text"),
    [
        (hub_table(), {"image": "img"}, r"no column 'img'; it has image, label"),
        (hub_table(), {"label": "y"}, "no column 'y'"),
        (hub_table(), {"image": "label"}, "type int64; expected bytes"),
        (hub_table(), {"label": "image"}, "expected whole"),
        (hub_table(labels=[0.5] * COUNT), {}, "type double"),
        (hub_table(labels=[0, None] + [1] * 23), {}, r"1\.parquet row 1: found no label"),
        (hub_table().slice(0, 0), {}, "no rows"),
    ],
)
def test_a_table_that_is_not_of_images_is_named(tmp_path, table, arguments, text):
    with pytest.raises(DataError, match=text):
        parquet_images(one_file(tmp_path, table), **arguments)


def test_files_of_different_kinds_are_named(tmp_path):
    plain = pa.table({"image": pa.array(IMAGES, pa.binary()), "label": pa.array(LABELS)})
    put_files(tmp_path, {"1.parquet": parquet(hub_table()), "2.parquet": parquet(plain)})
    with pytest.raises(DataError, match=r"2\.parquet.*binary"):
        parquet_images(str(tmp_path))
    put_files(tmp_path, {"2.parquet": parquet(hub_table(names=NAMES[::-1]))})
    with pytest.raises(DataError, match=r"2\.parquet names other classes"):
        parquet_images(str(tmp_path))


@pytest.mark.parametrize("bad", [None, b"", b"no image", IMAGES[0][:50]])
def test_a_row_that_is_no_image_is_named(tmp_path, bad):
    images = [*IMAGES[:9], bad, *IMAGES[10:]]
    dataset = parquet_images(one_file(tmp_path, hub_table(images=images)))
    assert dataset[8][0].equal(wanted(8))
    with pytest.raises(DataError, match=r"1\.parquet row 9"):
        dataset[9]


@pytest.mark.parametrize("data", [b"", b"PAR1", b"no Parquet" * 9, parquet(hub_table())[:-9]])
def test_a_file_that_is_no_parquet_is_named(root, data):
    put_files(root, {"data/train-00001-of-00002.parquet": data})
    with pytest.raises(DataError, match="train-00001-of-00002"):
        parquet_images(str(root))


def test_a_file_that_changed_since_it_was_opened_is_named(root):
    dataset = parquet_images(str(root))
    path = root / "data/train-00001-of-00002.parquet"
    path.write_bytes(FILES["data/train-00000-of-00002.parquet"])
    assert dataset[0][0].equal(wanted(0))
    with pytest.raises(DataError, match="train-00001-of-00002.* has changed since"):
        dataset[20]


@given(st.data())
def test_damaged_files_are_an_error_or_right_images_by_name(tmp_path_factory, data):
    whole = FILES["data/train-00000-of-00002.parquet"]
    damaged = bytearray(whole)
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    first = data.draw(st.sampled_from([0, footer]))  # what Arrow makes of a footer ends processes
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(first, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.getbasetemp() / "damaged"
    put_files(folder, {"1.parquet": bytes(damaged)})
    try:
        items = parquet_images(str(folder)).__getitems__(range(13))
    except DataError as error:
        message = str(error)
    else:
        message = "1.parquet" if all(image.ndim == 3 for image, _ in items) else "no images"
    assert "1.parquet" in message


def test_a_page_whose_checksum_is_wrong_is_named(tmp_path):
    written = parquet(hub_table(), write_page_checksum=True, compression="none")
    other = bytearray(IMAGES[7])
    other[-10] ^= 1  # a JPEG still, of other pixels
    put_files(tmp_path, {"1.parquet": written.replace(IMAGES[7], bytes(other))})
    dataset = parquet_images(str(tmp_path))
    assert dataset[0][0].equal(wanted(0))
    with pytest.raises(DataError, match=r"1\.parquet: row group 1 cannot be decoded"):
        dataset[7]


def test_a_footer_longer_than_the_tail_is_read_whole(tmp_path):
    table = hub_table().replace_schema_metadata({"much": "x" * 100_000})
    assert len(parquet_images(one_file(tmp_path, table))) == COUNT


def test_labels_are_remembered_until_a_file_changes(root, monkeypatch):
    module = sys.modules["epochal.data.datasets.parquet_images"]
    monkeypatch.setattr(module, "MIN_REMEMBERED", 1)
    read = []
    read_labels = module._read_labels
    monkeypatch.setattr(
        module, "_read_labels", lambda *given: read.append(1) or read_labels(*given)
    )
    for _ in range(2):
        dataset = parquet_images(str(root))
        assert (dataset.targets.tolist(), dataset.classes) == (LABELS, NAMES)
    assert len(read) == 1
    other = hub_table(13, labels=LABELS[::-1])
    put_files(root, {"data/train-00001-of-00002.parquet": parquet(other)})
    assert parquet_images(str(root)).targets.tolist() == LABELS[:13] + LABELS[::-1][13:]


def test_large_row_groups_are_told_of(root, monkeypatch, caplog):
    module = sys.modules["epochal.data.datasets.parquet_images"]
    parquet_images(str(root))
    assert caplog.text == ""
    monkeypatch.setattr(module, "GROUPS_BYTES", 100)
    parquet_images(str(root))
    assert "row_group_size=100" in caplog.text
