"""The former name of `epochal.engine.model.ema`; see `epochal.engine`."""

from epochal.engine.model.ema import WeightAverage

__all__ = ["WeightAverage"]
