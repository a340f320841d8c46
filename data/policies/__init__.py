"""Which samples the next epoch trains on: pure functions over sample tables."""

from epochal.data.policies.plan import PlanContext, Planned, plan_epoch

__all__ = ["PlanContext", "Planned", "plan_epoch"]
