"""The former name of `epochal.engine.loop.epoch`; see `epochal.engine`."""

from epochal.engine.loop.epoch import EpochResult, train_epoch, updates_table

__all__ = ["EpochResult", "train_epoch", "updates_table"]
