"""The sampler: each sample once or as often as asked, cut and drawn by hashes alone."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.data.config.batches import BatchesConfig
from epochal.data.errors import DataError
from epochal.data.loading.batch_sampler import occurrences, sampler_order, sampler_plan
from epochal.data.loading.order import epoch_order, micro_batches

SCALES = {"sizes": [32, 64, 96, [96, 160]]}
KINDS = {
    "fixed": {},
    "multi_scale": SCALES,
    "variable_batch": {"size": 64, **SCALES},
}
COUNTS = st.integers(0, 150)


def sampler(kind="fixed", **more):
    return BatchesConfig(kind=kind, **{**KINDS[kind], **more})


def order_of(config, count, *, epoch=3, seed=7, **more):
    return sampler_order(config, seed=seed, epoch=epoch, sample_ids_N=np.arange(count), **more)


def plan_of(config, order, *, batch_size=4, accumulate=1, drop_last=False, epoch=3):
    return sampler_plan(
        config, order, batch_size=batch_size, accumulate=accumulate, drop_last=drop_last,
        seed=7, epoch=epoch,
    )  # fmt: skip


def slices(plan):
    return [plan.slice(step).tolist() for step in range(plan.num_micro_steps)]


@given(
    st.sampled_from(list(KINDS)), COUNTS, st.integers(1, 20), st.integers(1, 5), st.booleans(),
    st.integers(0, 3),
)  # fmt: skip
def test_every_sample_comes_once_and_windows_count_what_they_hold(
    kind, count, batch_size, accumulate, drop_last, epoch
):
    config = sampler(kind)
    order = order_of(config, count, epoch=epoch)
    plan = plan_of(
        config, order, batch_size=batch_size, accumulate=accumulate, drop_last=drop_last,
        epoch=epoch,
    )  # fmt: skip
    parts, seen, sizes, updates = slices(plan), 0, set(), 0
    assert list(chain.from_iterable(parts)) == order.tolist()[: plan.num_samples]
    assert drop_last or sorted(chain.from_iterable(parts)) == list(range(count))
    batch_of = dict(
        zip(
            config.sizes_in(epoch),
            config.batch_sizes_in(epoch, batch_size=batch_size),
            strict=True,
        )
    )
    for step, part in enumerate(parts):
        whole = batch_of.get(plan.size_HW(step), batch_size)
        incomplete_end = step == len(parts) - 1 and (not drop_last or step == 0)
        assert len(part) == whole or (incomplete_end and 0 < len(part) < whole)
        seen += len(part)
        sizes.add(plan.window(step).num_samples)
        if plan.window(step).last:
            assert sizes == {seen}
            updates, seen, sizes = updates + 1, 0, set()
        assert plan.rows_after(step + 1) == sum(map(len, parts[: step + 1]))
        assert plan.repeats(step) is None
    assert updates == plan.num_updates
    assert not sizes


def test_the_default_is_the_order_and_cut_of_before():
    config = BatchesConfig()
    order = order_of(config, 50)
    assert order.tolist() == epoch_order(seed=7, epoch=3, sample_ids_N=np.arange(50)).tolist()
    assert slices(plan_of(config, order)) == slices(micro_batches(order, batch_size=4))
    assert config.key_slice(0) == {}


def test_a_batch_has_about_as_many_pixels_at_any_resolution():
    config = sampler("variable_batch", size=[64, 64], sizes=[32, 64, [64, 96], 128, 512])
    assert config.batch_sizes_in(0, batch_size=8) == (32, 8, 5, 2, 1)
    plan = plan_of(config, np.arange(3000), batch_size=8)
    for step in range(plan.num_micro_steps - 1):
        height, width = plan.size_HW(step)
        assert len(plan.slice(step)) == max(1, 8 * 64 * 64 // (height * width))
    assert {plan.size_HW(step) for step in range(plan.num_micro_steps)} == set(config.sizes_in(0))


def test_resolutions_are_pinned_and_differ_by_epoch():
    config = sampler("multi_scale", sizes=[32, 64, 96])
    drawn = [
        plan_of(config, np.arange(40), epoch=epoch).sizes_M2[:, 0].tolist() for epoch in (0, 1)
    ]
    assert drawn == [
        [64, 64, 96, 96, 32, 32, 64, 96, 96, 64],
        [64, 32, 64, 64, 32, 64, 96, 64, 32, 64],
    ]
    counts = np.unique(plan_of(config, np.arange(12_000)).sizes_M2[:, 0], return_counts=True)[1]
    assert all(abs(count - 1000) < 120 for count in counts)


def test_a_range_is_even_divisible_and_each_size_once():
    config = BatchesConfig(kind="multi_scale", min_size=128, max_size=[320, 256])
    assert config.sizes_in(0) == ((128, 128), (192, 160), (224, 192), (288, 224), (320, 256))
    few = BatchesConfig(kind="multi_scale", min_size=32, max_size=64, num_sizes=9)
    assert few.sizes_in(0) == ((32, 32), (64, 64))
    one = BatchesConfig(kind="multi_scale", min_size=32, max_size=64, num_sizes=1)
    assert one.sizes_in(0) == ((64, 64),)


def test_resolutions_grow_at_epochs_and_only_those_have_other_keys():
    config = sampler("variable_batch", size=64, sizes=[64, 128], grow_at=[2, 4], grow_by=0.5)
    found = [config.sizes_in(epoch) for epoch in range(5)]
    assert found[:2] == [((64, 64), (128, 128))] * 2
    assert found[2:4] == [((96, 96), (192, 192))] * 2
    assert found[4] == ((160, 160), (288, 288))
    plain = sampler("variable_batch", size=64, sizes=[64, 128])
    same = [config.key_slice(epoch) == plain.key_slice(epoch) for epoch in range(5)]
    assert same == [True, True, False, False, False]


@given(COUNTS, st.integers(1, 6), st.booleans(), st.integers(1, 9))
def test_repeats_are_counted_and_each_has_a_number_of_its_own(count, repeats, truncate, size):
    config = BatchesConfig(repeats=repeats, truncate=truncate)
    order = order_of(config, count)
    assert len(order) == config.epoch_length(count) == (count if truncate else count * repeats)
    times = np.bincount(order, minlength=count)
    if truncate:
        assert (times <= repeats).all()
        assert (times[times > 0] < repeats).sum() <= 1
    else:
        assert (times == repeats).all()
    plan = plan_of(config, order, batch_size=size)
    rows = [
        (sample, turn)
        for step in range(plan.num_micro_steps)
        for sample, turn in zip(
            plan.slice(step).tolist(),
            [0] * len(plan.slice(step)) if plan.repeats(step) is None else plan.repeats(step),
            strict=True,
        )
    ]
    assert len(set(rows)) == len(rows)
    assert all(0 <= turn < repeats for _, turn in rows)


def test_which_classes_have_one_row_more_changes_from_epoch_to_epoch():
    config, labels = BatchesConfig(class_balanced=True), np.arange(10) % 3
    more = {
        int(np.bincount(labels[order_of(config, 10, epoch=epoch, labels_N=labels)]).argmax())
        for epoch in range(20)
    }
    assert more == {0, 1, 2}


LABELS = st.lists(st.integers(-1, 4), min_size=1, max_size=60)


@given(LABELS, st.data(), st.integers(0, 4), st.integers(1, 3), st.booleans())
def test_classes_come_equally_often_and_their_samples_evenly(labels, data, epoch, repeats, cut):
    labels = np.array(labels)
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels))))
    config = BatchesConfig(class_balanced=True, repeats=repeats, truncate=cut)

    def drawn(ids):
        return sampler_order(
            config, seed=7, epoch=epoch, sample_ids_N=ids, keep_N=keep, labels_N=labels
        )

    ids = np.arange(len(labels))
    if not (keep & (labels >= 0)).any():
        with pytest.raises(DataError, match="no sample that is kept has a class"):
            drawn(ids)
        return
    order = drawn(ids)
    assert len(order) == config.epoch_length(int(keep.sum()))
    assert keep[order].all()
    assert (labels[order] >= 0).all()
    draws = order[::repeats]
    classes = np.unique(labels[keep & (labels >= 0)])
    counts = [int((labels[draws] == one).sum()) for one in classes]
    assert max(counts) - min(counts) <= 1
    for one in classes:
        times = [int((draws == row).sum()) for row in np.flatnonzero(keep & (labels == one))]
        assert max(times) - min(times) <= 1
    turned = drawn(ids[::-1])  # other ids at the positions: another order
    assert len(turned) == len(order)


@given(st.lists(st.integers(0, 9), max_size=60))
def test_occurrences_are_what_a_loop_counts(order):
    seen, expected = {}, []
    for one in order:
        expected.append(seen.get(one, 0))
        seen[one] = seen.get(one, 0) + 1
    found = occurrences(np.array(order, dtype=np.int64))
    assert (found is None) == (len(seen) == len(order))
    assert found is None or found.tolist() == expected


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"sizes": [32]}, "sizes: it acts with kind"),
        ({"size": 32}, "size: it acts with kind"),
        ({"kind": "multi_scale"}, "found none of them"),
        ({"kind": "multi_scale", "sizes": [32], "max_size": 32}, "found sizes, max_size"),
        ({"kind": "multi_scale", "min_size": 32}, "found min_size"),
        ({"kind": "multi_scale", "min_size": 64, "max_size": 32}, "32 x 32 is below min_size"),
        ({"kind": "multi_scale", "sizes": [40]}, "40 x 40 is no multiple of divisible_by: 32"),
        ({"kind": "multi_scale", "sizes": [32], "size": 32}, "multi_scale takes none"),
        ({"kind": "variable_batch", "sizes": [32]}, "variable_batch needs it"),
        ({"kind": "multi_scale", "sizes": [32], "grow_at": [4, 4]}, "rising epochs"),
        ({"kind": "multi_scale", "sizes": [32], "grow_at": [1, 2, 3, 4, 5], "grow_by": 10.0},
         "at most 65536"),
        ({"kind": "multi_scale", "sizes": [True]}, "sizes"),
        ({"kind": "multi_scale", "sizes": [0]}, "greater than or equal to 1"),
        ({"repeats": 0}, "greater than or equal to 1"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused(fields, problem):
    with pytest.raises(ValueError, match=problem):
        BatchesConfig(**fields)
