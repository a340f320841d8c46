"""Finds mistakes before epoch 0: builds the parts, checks the labels, tries a forward pass."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from epochal.data.config.augment import Part
from epochal.data.errors import (
    ConfigError,
    DataError,
    InputError,
    PreflightFailed,
    TargetError,
    TrainingFailed,
    passes_through,
)
from epochal.data.inspection.dataset import OpenDataset
from epochal.data.inspection.describe import LabelsOutside, check_batch_size, check_labels
from epochal.data.tables.schemas import OBSERVATIONS
from epochal.data.traces import in_one_line, users_line
from epochal.data.types import seed_64
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.layout import order_blocks, order_lengths
from epochal.tasks.preflight.loss_mean import check_mean
from epochal.tasks.stages.score import SCORING_DATA
from epochal.tasks.user_code.components import Components, build_components, own_policy
from epochal.tasks.user_code.failures import failed_module

if TYPE_CHECKING:
    import torch
    from torch import nn

    from epochal.engine.model.step import Step, StepOutput

MAX_NAMED = 5
PROBE_SAMPLES = 2  # more than one, so that outputs without a batch dimension are seen


def check_before_start(
    config: RunConfig,
    data: Mapping[str, OpenDataset],
    *,
    device: torch.device,
    notice: Callable[[str], None] = lambda _: None,
) -> Components:
    """Builds the parts and tries them on the first samples; returns the parts as they were built.

    notice: told what of their state no checkpoint holds. Raises ConfigError, TargetError,
    DataError or PreflightFailed, naming the field.
    """
    from epochal.data.loading.readers import check_threads
    from epochal.tasks.preflight.carried_state import untouched
    from epochal.tasks.run_data.probe_batches import check_forms

    train = data["train_data"]
    check_batch_size(
        config.epoch_rows(train.info.num_samples),
        config.loader.batch_size,
        drop_last=config.loader.drop_last,
    )
    if config.batches.class_balanced:
        _ = train.classes_N
    order_blocks(config, train.looked, count=train.info.num_samples)
    order_lengths(config, train.looked, count=train.info.num_samples)
    if config.loader.threads:
        for name, opened in data.items():
            check_threads(opened.dataset, named=name)
    check_forms(config, train, data["validation_data"])
    components = build_components(config, device=device)
    with untouched(components):
        _try_all(config, components, data, notice=notice)
        _tell_uncarried(config, components, train, notice=notice)
    return components


def _try_all(
    config: RunConfig,
    components: Components,
    data: Mapping[str, OpenDataset],
    *,
    notice: Callable[[str], None],
) -> None:
    """Every pass that the run will make, on the first samples."""
    from epochal.engine.model.step import is_between_numbers
    from epochal.tasks.run_data.probe_batches import all_sizes, check_last_batch

    train, validation = data["train_data"], data["validation_data"]

    def scan(outputs: Any) -> None:
        num_classes = None if is_between_numbers(components.loss) else _num_classes(outputs)
        wrong = []
        for dataset in (train, validation):
            if num_classes is not None and dataset.info.label_min is not None:
                try:
                    check_labels(
                        dataset.info.label_min,
                        dataset.info.label_max,
                        labels_N=dataset.labels_N,
                        num_classes=num_classes,
                        ignore_index=components.loss.ignore_index,
                        name=dataset.field,
                    )
                except LabelsOutside as error:
                    wrong.append(str(error))
        if wrong:
            assert num_classes is not None
            raise LabelsOutside(
                "; ".join(wrong),
                num_classes=num_classes,
                ignore_index=components.loss.ignore_index,
            )

    output, target = _probe(config, components, train, scan=scan)
    _check_losses(config, output, target)
    check_mean(config, components, train, notice=notice)
    check_own_policy(config)
    _try_without_gradients(config, components, data)
    if config.mixing is not None:
        _probe(config, components, train, mixed=True)
    for size_HW in all_sizes(config):
        _probe(config, components, train, mixed=config.mixing is not None, size_HW=size_HW)
    _check_metrics(components, output, target)
    check_last_batch(config, components, train)
    copies = _copies(components.state.model, components.step)
    if copies is not None:  # statistics, counters and queues of the real ones stay as they are
        first_HW = next(iter(all_sizes(config)), None)
        mixed = config.mixing is not None
        _probe(config, components, train, mixed=mixed, size_HW=first_HW, copies=copies)


def _try_without_gradients(
    config: RunConfig, components: Components, data: Mapping[str, OpenDataset]
) -> None:
    """Passes that see the items at their own resolution and unmixed, unlike training."""
    if config.sampling.policy != "none" and config.sampling.scoring is not None:
        scored = data.get(SCORING_DATA, data["train_data"])
        _probe(config, components, scored, part="validation")
    if config.augment is not None:  # images may have another form here than in training
        _probe(config, components, data["validation_data"], part="validation")


def _tell_uncarried(
    config: RunConfig, components: Components, data: OpenDataset, *, notice: Callable[[str], None]
) -> None:
    """Names what a step changes and no checkpoint holds.

    Raises PreflightFailed for it if `reproducibility` is strict, ConfigError for parameters that
    the loss depends on and nothing would train.
    """
    import torch

    from epochal.engine.loop.mixing import Mixer
    from epochal.engine.randomness import seeded
    from epochal.tasks.preflight.carried_state import (
        changed_in_evaluation,
        uncarried,
        untrained_parameters,
    )
    from epochal.tasks.preflight.shared_state import check_shared
    from epochal.tasks.run_data.probe_batches import first_batch

    state = components.state
    count = min(PROBE_SAMPLES, data.info.num_samples)
    batch, moved = first_batch(config, data, components, count=count)
    if config.mixing is not None:
        moved = Mixer(config.mixing, seed=config.seed, epoch=0)(moved, batch.sample_ids_B)

    def step() -> StepOutput:
        with seeded(seed_64(config.seed, "probe")):
            return components.step(state.model, moved)

    was_training = state.model.training
    state.model.train()
    try:
        with torch.enable_grad():
            if config.launch.processes > 1:
                check_shared(components, step)
            found = uncarried(components, step)
            untrained = untrained_parameters(components, step)
            changed = changed_in_evaluation(components, step)
    except InputError:
        raise
    except BaseException as error:
        if passes_through(error):
            raise
        return  # whatever it is, the first epoch meets it too
    finally:
        state.model.train(was_training)
    if untrained:
        raise ConfigError(
            f"step: its loss depends on {untrained[0]}, a parameter that is not the model's, nor "
            "of a loss or step that is a torch.nn.Module: nothing would train or store it; make "
            "the step (or the loss) a module that holds it, or call requires_grad_(False) on it"
        )
    if found:
        _tell_found(config, found, notice=notice)
    if changed:
        _tell_changed(config, changed, notice=notice)


def _tell_found(
    config: RunConfig, found: Mapping[str, str], *, notice: Callable[[str], None]
) -> None:
    listed = "; ".join(f"{name}: {remedy}" for name, remedy in list(found.items())[:MAX_NAMED])
    more = f"; and {len(found) - MAX_NAMED} more" * (len(found) > MAX_NAMED)
    text = f"each step changes what no checkpoint holds: {listed}{more}"
    if config.reproducibility == "strict":
        raise PreflightFailed(f"{text}; `reproducibility: strict` refuses it")
    several = " Several processes change one each." if config.launch.processes > 1 else ""
    notice(
        f"{text}. A run that is interrupted goes on without it, and may end in other numbers."
        f"{several}"
    )


def _tell_changed(
    config: RunConfig, changed: Sequence[str], *, notice: Callable[[str], None]
) -> None:
    listed = ", ".join(changed[:MAX_NAMED])
    more = f" and {len(changed) - MAX_NAMED} more" * (len(changed) > MAX_NAMED)
    text = (
        f"a validation changes weights: {listed}{more}: change them in training mode alone "
        "(`if model.training:`)"
    )
    if config.reproducibility == "strict":
        raise PreflightFailed(f"{text}; `reproducibility: strict` refuses it")
    notice(
        f"{text}. A run that is interrupted goes on without what its last validation changed, and "
        "may end in other numbers."
    )


def _probe(
    config: RunConfig,
    components: Components,
    data: OpenDataset,
    *,
    scan: Callable[[Any], None] = lambda _: None,
    mixed: bool = False,
    size_HW: tuple[int, int] | None = None,
    copies: tuple[nn.Module, Step] | None = None,
    part: Part = "train",
) -> tuple[StepOutput, Any]:
    """The step's output and the target of the first samples, in evaluation mode or as in training.

    scan: takes the model's outputs, before any loss where the default step gives them. mixed: of a
    mixture of them, as training sees it. size_HW: of images at that resolution of `batches`.
    copies: of model and step: these are tried in training mode, with gradients. part: whose
    operations of `augment` are applied.
    """
    import torch

    from epochal.engine.loop.mixing import Mixer
    from epochal.engine.model.batches import split_batch, target_of
    from epochal.engine.model.step import check_output
    from epochal.engine.randomness import seeded
    from epochal.tasks.run_data.probe_batches import first_batch

    count = min(PROBE_SAMPLES, data.info.num_samples)
    model, step = components.state.model, components.step
    tried: dict[str, Any] = {}
    was_training, training = model.training, copies is not None
    if copies is not None:
        model, step = copies
    try:
        model.train(training)
        with torch.set_grad_enabled(training), seeded(seed_64(config.seed, "probe")):
            batch, moved = first_batch(
                config, data, components, count=count, size_HW=size_HW, part=part
            )
            # First the labels: on a GPU one that is no class would kill the process.
            if config.step is None and not mixed:
                tried["input"], tried["target"] = split_batch(moved)
                tried["outputs"] = model(tried["input"])
                scan(tried["outputs"])
            if mixed and config.mixing is not None:
                mixer = Mixer(config.mixing, seed=config.seed, epoch=0)
                moved = mixer(moved, batch.sample_ids_B)
            output = check_output(step(model, moved), num_samples=count)
            if training:
                _check_gradient(config, output)
            if config.step is not None:
                scan(output.outputs)
            return output, target_of(moved) if output.target is None else output.target
    except TrainingFailed as error:  # an item that cannot be read, or items that do not collate
        raise DataError(f"{data.field}: {error}") from error
    except BaseException as error:  # the user's model, loss or step may raise anything
        if passes_through(error):
            raise
        told = f"{in_one_line(error)}{users_line(error)}{failed_module(error, components.modules)}"
        where = f"{data.field}{_sized(size_HW)}{' in training mode' if training else ''}"
        message = _probe_message(config, where=where, told=told, is_sized=size_HW is not None)
        raise TargetError(f"{message}{_found(model, tried)}") from error
    finally:
        components.state.model.train(was_training)


def _copies(model: nn.Module, step: Step) -> tuple[nn.Module, Step] | None:
    """Model and step with buffers and attributes of their own, and the same weights.

    None for those that hold what cannot be copied, such as an open file.
    """
    shared: dict[int, Any] = {id(one): one for one in model.parameters()}
    try:
        return copy.deepcopy(model, shared), copy.deepcopy(step, shared)
    except Exception:  # noqa: BLE001 - a user's __deepcopy__ may raise anything
        return None


def _check_gradient(config: RunConfig, output: StepOutput) -> None:
    if not output.loss_B.requires_grad:
        part = "loss" if config.step is None else "step"
        raise TargetError(
            f"{part}: its loss depends on no parameter that trains, so there is no gradient: was "
            "it computed under torch.no_grad(), from outputs.detach(), or from NumPy's numbers?"
        )


def _sized(size_HW: tuple[int, int] | None) -> str:
    return "" if size_HW is None else f" at {size_HW[0]} x {size_HW[1]} pixels of `batches`"


def _probe_message(config: RunConfig, *, where: str, told: str, is_sized: bool) -> str:
    step = "loss(model(input), target)" if config.step is None else config.step.target
    return (
        f"model, loss, train_data{', batches' if is_sized else ''}: trying {step} on the first "
        f"samples of {where} raised {told}; model.target is "
        f"{config.model.target!r}, loss.target is {config.loss.target!r}"
    )


def _found(model: nn.Module, tried: Mapping[str, Any]) -> str:
    """Shapes of what the default step had in hand when it failed, and what to do about it."""
    from epochal.engine.model.batches import described
    from epochal.tasks.preflight import advice

    if "outputs" in tried:
        found = [f"{name} {described(tried[name])}" for name in ("outputs", "target")]
        cure = advice.of_loss(tried["outputs"], tried["target"])
    elif "input" in tried:
        found = [f"input {described(tried['input'])}"]
        cure = advice.of_input(tried["input"], model)
    else:
        return ""
    return f"; found {', '.join(found)}{_then(cure)}"


def _then(cure: str) -> str:
    return f"; {cure}" if cure else ""


def _check_losses(config: RunConfig, output: StepOutput, target: Any) -> None:
    from epochal.engine.model.batches import described

    policy = config.sampling.policy
    if policy == "none":
        return
    part = "loss" if config.step is None else "step"
    if output.loss_B.ndim == 0:
        raise ConfigError(
            f"sampling.policy: {policy!r} needs one loss per sample, but {part}.target gives a "
            "single number for the batch; use a loss that takes `reduction`, a step that returns "
            "losses of shape (B,), or `policy: none`"
        )
    needed = config.sampling.observations
    if _num_classes(output.outputs) is None and not needed <= set(output.observations or {}):
        names = " and ".join(f"`{name}`" for name in sorted(needed))
        raise ConfigError(
            f"sampling.policy: {policy!r} goes by {names} of predictions, but the model's "
            f"output is {described(output.outputs)} for targets {described(target)}, expected "
            f"logits of shape (B, C); use a step that returns the observations {names}, a policy "
            "that goes by losses alone, or `policy: none`"
        )


def _check_metrics(components: Components, output: StepOutput, target: Any) -> None:
    """Raises TargetError if a metric does not take what the step gives."""
    from epochal.engine.model.batches import described
    from epochal.tasks.preflight import advice

    ignored = getattr(components.step, "ignore_index", None)
    for name, metric in components.metrics.fresh(ignore_index=ignored).items():
        try:
            getattr(metric, "to", lambda _: None)(components.device)
            metric.update(output.outputs, target)
        except BaseException as error:  # a metric of the user's may raise anything
            if passes_through(error):
                raise
            raise TargetError(
                f"metrics.validation: {name!r} does not take the outputs "
                f"({described(output.outputs)}) and targets ({described(target)}) of the first "
                f"samples: {in_one_line(error)}"
                f"{_then(advice.of_metric(metric, output.outputs, target))}"
            ) from error
        _check_value(name, metric)


_OF_SAMPLES = (ValueError, ArithmeticError, LookupError, RuntimeError, TypeError, AssertionError)
"""What a metric may raise of too few samples."""


def _check_value(name: str, metric: Any) -> None:
    """Raises TargetError if the metric computes something else than numbers.

    Of too few samples a metric may raise: then its first validation tells.
    """
    from epochal.engine.measure.metrics import numbers_of

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as those of a class that no sample has
        try:
            value = metric.compute()
        except BaseException as error:  # a metric of the user's may raise anything
            if passes_through(error):
                raise
            if isinstance(error, _OF_SAMPLES):
                return
            raise TargetError(
                f"metrics.{name}: compute() raised {in_one_line(error)}{users_line(error)}"
            ) from error
        numbers_of(name, value)


def _num_classes(logits: Any) -> int | None:
    shape = getattr(logits, "shape", None)
    return int(shape[1]) if shape is not None and len(shape) == 2 else None  # noqa: PLR2004 - (B, C)


POLICY_SAMPLES = 8


def check_own_policy(config: RunConfig) -> None:
    """Tries the function of policy custom on a table of a few samples. Raises TargetError."""
    own, target = own_policy(config), config.sampling.callable_target
    if own is None or target is None:
        return
    import numpy as np

    from epochal.data.mining.plan import plan_epoch
    from epochal.data.policies.shared.pool import PlanContext
    from epochal.data.samples.table import update

    ids_N = np.arange(POLICY_SAMPLES)
    seen = {
        column.name: np.full(
            POLICY_SAMPLES, 0.5 if column.dtype == "float32" else 0, dtype=column.dtype
        )
        for column in OBSERVATIONS.columns
    }
    seen["sample_id"] = ids_N
    table = update(
        None,
        seen,
        epoch=0,
        sample_ids_N=ids_N,
        labels_N=None,
        confidence=config.sampling.easy_from,
    )
    try:
        plan_epoch(
            table, PlanContext(epoch=1, full=False, seed=config.seed), config.sampling, own=own
        )
    except TargetError as error:
        raise TargetError(f"{error}; it was tried on {POLICY_SAMPLES} samples made up") from error
