"""Which samples the next epoch trains on: one file per policy, pure functions over columns."""

from epochal.data.policies.shared.label_noise import noise_rate
from epochal.data.policies.shared.pool import PlanContext
from epochal.data.samples.table import FLAG_SUSPECT

__all__ = ["FLAG_SUSPECT", "PlanContext", "noise_rate"]
