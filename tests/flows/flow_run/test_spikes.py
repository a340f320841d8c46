"""Which jumps of loss and gradient norm become an event."""

import math
from types import SimpleNamespace

from epochal.flows.flow_run.spikes import SpikeWatch


def live(update, *, loss=1.0, norm=1.0, epoch=0):
    return SimpleNamespace(epoch=epoch, update=update, loss=loss, gradient_norm=norm)


def ended(epoch, *, cached=False, kind="train", loss=1.0, **values):
    return SimpleNamespace(
        stage=SimpleNamespace(kind=kind, number=epoch),
        record=SimpleNamespace(values={"loss": loss, "gradient_norm": 1.0, **values}),
        cached=cached,
    )


def calm(watch, updates=20, epoch=0):
    assert [one for update in range(updates) for one in watch.live(live(update, epoch=epoch))] == []


def test_a_norm_of_many_times_the_median_is_told_once_in_an_epoch():
    watch = SpikeWatch()
    calm(watch)
    (spike,) = watch.live(live(20, norm=6.0))
    assert (spike.what, spike.epoch, spike.update, spike.value) == ("gradient norm", 0, 20, 6.0)
    assert "6.0 times the median" in spike.text
    assert watch.live(live(21, norm=7.0)) == []
    assert len(watch.live(live(1, norm=7.0, epoch=1))) == 1


def test_numbers_that_are_not_finite_are_told_at_once():
    (spike,) = SpikeWatch().live(live(1, loss=math.nan))
    assert spike.text == "epoch 0, about update 1: loss not finite"


def test_few_values_say_nothing_yet_and_neither_does_a_rise_below_the_factor():
    watch = SpikeWatch()
    calm(watch, updates=10)
    assert watch.live(live(10, norm=100.0)) == []
    watch = SpikeWatch()
    calm(watch)
    assert watch.live(live(20, norm=4.9)) == []


def test_what_only_the_record_counts_is_told_at_the_end_of_the_epoch():
    watch = SpikeWatch()
    (spike,) = watch.ended(ended(3, spikes=2))
    assert (spike.what, spike.count, spike.epoch) == ("gradient norm", 2, 3)
    (skipped,) = watch.ended(ended(4, updates_skipped=7))
    assert skipped.text == "epoch 4: 7 updates were not finite and were skipped"


def test_an_epoch_whose_loss_doubles_is_told():
    watch = SpikeWatch()
    assert [one for epoch in range(5) for one in watch.ended(ended(epoch))] == []
    (spike,) = watch.ended(ended(5, loss=2.5))
    assert (spike.what, spike.epoch, spike.median) == ("loss", 5, 1.0)


def test_a_cached_epoch_is_old_news_but_what_it_was_like_counts():
    watch = SpikeWatch()
    assert watch.ended(ended(0, cached=True, spikes=3)) == []
    for epoch in range(1, 5):
        watch.ended(ended(epoch, cached=True))
    assert len(watch.ended(ended(5, loss=9.0))) == 1


def test_stages_without_updates_tell_nothing():
    assert SpikeWatch().ended(ended(0, kind="validate", spikes=3)) == []
