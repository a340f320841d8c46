"""Which samples the next epoch trains on: pure functions over sample tables."""

from epochal.data.policies.noise import FLAG_SUSPECT, noise_rate
from epochal.data.policies.plan import Planned, carry_state, plan_epoch
from epochal.data.policies.pool import PlanContext

__all__ = ["FLAG_SUSPECT", "PlanContext", "Planned", "carry_state", "noise_rate", "plan_epoch"]
