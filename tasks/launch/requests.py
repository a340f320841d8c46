"""What a trainer does when it is asked: opens the data, checks before the start, computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal.data.store.store import Store
from epochal.tasks.computing.buffer import Packed, pack
from epochal.tasks.computing.link import Link, PutDown
from epochal.tasks.computing.shared_pack import pack_slices
from epochal.tasks.computing.work import Computed, Order, Work
from epochal.tasks.config.run import RunConfig
from epochal.tasks.goodput.sign_of_life import SignOfLife
from epochal.tasks.launch.failures import at_work, before_start
from epochal.tasks.launch.meeting import Rank, joined
from epochal.tasks.launch.opening import Opening, check_same
from epochal.tasks.trainer.answers import AskedStorage
from epochal.tasks.trainer.channel import Message

if TYPE_CHECKING:
    import numpy.typing as npt

Reply = tuple[Message, bytes | None]


@dataclass
class Worker:
    """One run's work, as far as it was asked for.

    interruptible: whether a signal raises in this process, wherever it is. rank: among several
    processes that share the work; None: this one is alone.
    """

    link: Link
    interruptible: bool = False
    rank: Rank | None = None
    opening: Opening | None = None
    followed: Work | None = None

    @property
    def gpu(self) -> int | None:
        """The index of its GPU where there are several processes."""
        return None if self.rank is None else self.rank.gpu

    @property
    def work(self) -> Work:
        """The run that was opened."""
        if self.followed is not None:
            return self.followed
        assert self.opening is not None, "nothing was opened"
        return self.opening.work


def handle(worker: Worker, name: str, body: Mapping[str, Any], data: bytes | None = None) -> Reply:
    """Does what was asked for. data: bytes that came with it. Raises what a failure means."""
    if name == "follow":
        return _follow(worker, body, data or b"")
    return _REQUESTS[name](worker, body)


def _open(worker: Worker, body: Mapping[str, Any]) -> Reply:
    from epochal.tasks.user_code.components import prepare_numerics

    config = RunConfig.model_validate(body["config"])
    store = Store(body["store"], AskedStorage(worker.link))
    try:
        device = prepare_numerics(config, gpu=worker.gpu)
        work = Work(config, worker.link, device)
        worker.opening = Opening(work, store)
        return worker.opening.read(), worker.opening.ids()
    except BaseException as error:
        raise _meant(before_start(error, interruptible=worker.interruptible), error) from error


def _follow(worker: Worker, body: Mapping[str, Any], ids: bytes) -> Reply:
    """Opens the run as another process has opened it, whose data was read there."""
    from epochal.tasks.run_data.make import make_dataset, without
    from epochal.tasks.run_data.reading import check_same_items
    from epochal.tasks.run_data.told_data import told_data
    from epochal.tasks.runs.run_sources import data_fields
    from epochal.tasks.user_code.components import prepare_numerics

    config = RunConfig.model_validate(body["config"])
    try:
        device = prepare_numerics(config, gpu=worker.gpu)
        work = Work(config, worker.link, device)
        if "same" in body:
            check_same(body["same"], work, Store(body["store"], AskedStorage(worker.link)))
        work.data = told_data(
            body["data"], ids, make=lambda name, bad: without(make_dataset(config, name), bad)
        )
        for name in data_fields(config):
            check_same_items(config, name, work.data[name].info)
    except BaseException as error:
        raise _meant(before_start(error, interruptible=worker.interruptible), error) from error
    worker.followed = work
    return {}, None


def _check(worker: Worker, body: Mapping[str, Any]) -> Reply:
    assert worker.opening is not None
    worker.work.config = RunConfig.model_validate(body["config"])
    try:
        return worker.opening.check(), None
    except BaseException as error:
        raise _meant(before_start(error, interruptible=worker.interruptible), error) from error


def _check_start(worker: Worker, body: Mapping[str, Any]) -> Reply:
    from epochal.data.errors import ConfigError, CorruptObject, StateMismatch
    from epochal.tasks.checkpoints.warm_start import load_weights

    work = worker.work
    try:
        load_weights(Path(body["path"]), body["what"], work.config, work.ready_components())
    except (StateMismatch, CorruptObject) as error:
        raise ConfigError(str(error)) from error
    return {}, None


def _compute(worker: Worker, body: Mapping[str, Any]) -> Reply:
    from epochal.tasks.stages.registry import KINDS

    work, order = worker.work, Order.of_document(body["order"])
    kind, goodput = KINDS[order.kind], work.goodput
    assert kind.compute is not None, f"{order.kind} is not computed by a trainer"
    if worker.rank is not None:
        if worker.followed is not None and not kind.shared:
            return {}, None
        if kind.shared and work.group is None:
            in_slices = work.config.launch.shard_model
            shards = work.config.gradients.shards
            work.group = joined(worker.rank, work.device, shards=shards, in_turns=in_slices)
            if in_slices:  # the check before the start had the model as a whole
                work.components = None
    if order.signs is not None and goodput.signs is None:
        goodput.signs = SignOfLife.of_run(*order.signs)
    goodput.watch.restart()  # since the last order the flow's process has counted the time
    goodput.begin(order.key, kind.cause)
    try:
        computed = kind.compute(work, order)
        reply = _packed(work, computed, in_slices=kind.shared)
    except PutDown:
        work.touched = True
        goodput.failed()
        return {"put_down": True}, None
    except BaseException as error:
        work.touched = True
        goodput.failed()
        modules = {} if work.components is None else work.components.modules
        raise _meant(at_work(error, body["label"], modules), error) from error
    if worker.followed is not None:
        return {}, None
    return {**reply, "goodput": goodput.ended()}, None


def _meant(meant: BaseException, error: BaseException) -> BaseException:
    """To be raised from `error`; the error itself where it means what it says."""
    if meant is error:
        raise error
    return meant


def _packed(work: Work, computed: Computed, *, in_slices: bool) -> Message:
    """in_slices: whether tensors are of the state, of which this process may have slices."""
    link, group = work.link, work.group
    slices = work.components.state.slices if in_slices and work.components is not None else {}
    together = bool(slices and computed.tensors)
    if not work.leads and not together:
        return {}
    arrays: dict[str, npt.NDArray[Any]] = {
        f"{table}/{column}": array
        for table, columns in computed.columns.items()
        for column, array in columns.items()
    }
    packed: Packed | None
    if together:
        from epochal.engine.checkpoint.slices import slices_among

        assert group is not None
        of_files = {name: slices_among(one, slices) for name, one in computed.tensors.items()}
        if work.leads:
            link.claim_buffer()
        packed = pack_slices(link.buffer, group, computed.tensors, of_files, arrays)
    else:
        link.claim_buffer()
        packed = pack(link.buffer, computed.tensors, arrays)
    if packed is None:
        return {}
    return {
        "packed": packed.document,
        "values": dict(computed.values),
        "documents": dict(computed.documents),
        "tables": list(computed.columns),
        "files": {name: str(path) for name, path in computed.files.items()},
        "side": dict(computed.side),
        "facts": dict(computed.facts),
    }


def _images(worker: Worker, body: Mapping[str, Any]) -> Reply:
    from epochal.tasks.run_data.sample_images import read_images

    images = read_images(worker.work.data["train_data"], body["sample_ids"])
    data = b"".join(image.tobytes() for image in images)
    return {"shapes": [list(image.shape) for image in images]}, data


def _model_call(worker: Worker, _: Mapping[str, Any]) -> Reply:
    from epochal.tasks.preflight.model_call import model_call

    return model_call(worker.work)


_REQUESTS: dict[str, Callable[[Worker, Mapping[str, Any]], Reply]] = {
    "open": _open,
    "check": _check,
    "check_start": _check_start,
    "compute": _compute,
    "images": _images,
    "model_call": _model_call,
}
