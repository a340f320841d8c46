"""The former name of `epochal.engine.loop.mixing`; see `epochal.engine`."""

from epochal.engine.loop.mixing import MixedBatch, MixedStep, soft_targets

__all__ = ["MixedBatch", "MixedStep", "soft_targets"]
