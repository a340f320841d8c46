"""Evaluation of a tiny model: the metrics that the tests compare."""

from support.numbers.tiny_model import batches, cross_entropy

from epochal.engine.config.numerics import MetricsConfig
from epochal.engine.loop.evaluate import validate_epoch
from epochal.engine.measure.metrics import build_metrics


def metrics(*names, make=None, **options):
    config = MetricsConfig.model_validate({"validation": names, **options})
    return build_metrics(config, make or (lambda target: None))


def validate(state, x, y, *, batch_size=8, measured=None, step=None):
    return validate_epoch(
        state.model,
        batches(x, y, batch_size=batch_size),
        step=step or cross_entropy(),
        metrics=measured or metrics("accuracy", "top5_accuracy"),
        seed=3,
    )
