"""A user's own policy: its result is checked, and the rules of all policies hold for it too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from epochal.data.errors import TargetError
from epochal.data.policies.shared.policy import Policy, PolicyFields
from epochal.data.types import Args, Target, TargetName, in_json

if TYPE_CHECKING:
    from epochal.data.policies.shared.pool import Choice, Pool

# N samples


class CustomFields(PolicyFields):
    """The user's function."""

    target: TargetName | None = Field(
        default=None,
        description="of custom: a function plan(table, context, **args) that returns keep_N and "
        "weight_N, bool and float of shape (N,)",
        examples=["policy:plan"],
    )
    args: Args = Field(default_factory=dict, description="of custom: keyword arguments of the call")

    @property
    def callable_target(self) -> Target | None:
        """The function with its arguments, of policy custom."""
        return None if self.target is None else Target(target=self.target, args=in_json(self.args))


def _check(settings: CustomFields) -> None:
    if settings.target is None:
        raise ValueError("target: policy custom needs one, as `module:function`")


def _choose(pool: Pool, settings: CustomFields) -> Choice:
    """What the function keeps of the pool; weights above `max_weight` are lowered to it.

    Raises TargetError if the function returns no plan.
    """
    import numpy as np

    assert pool.own is not None
    given = pool.own()
    if not isinstance(given, tuple) or len(given) != 2:  # noqa: PLR2004 - keep and weight
        raise TargetError(
            f"sampling.target: it gave a {type(given).__name__}; expected (keep_N, weight_N), "
            f"bool and float of shape ({pool.total},)"
        )
    keep_N, weight_N = (np.asarray(array) for array in given)
    if keep_N.shape != (pool.total,) or keep_N.dtype != np.bool_:
        raise TargetError(
            f"sampling.target: its keep_N is {keep_N.dtype} of shape {keep_N.shape}; expected bool "
            f"of shape ({pool.total},)"
        )
    if weight_N.shape != (pool.total,) or weight_N.dtype.kind not in "fiu":
        raise TargetError(
            f"sampling.target: its weight_N is {weight_N.dtype} of shape {weight_N.shape}; "
            f"expected floats of shape ({pool.total},)"
        )
    if not bool((np.isfinite(weight_N) & (weight_N >= 0)).all()):
        row = int(np.flatnonzero(~(np.isfinite(weight_N) & (weight_N >= 0)))[0])
        raise TargetError(
            f"sampling.target: the weight of sample {int(pool.columns['sample_id'][row])} is "
            f"{weight_N[row]}; expected a number from 0 on"
        )
    weight_N = np.minimum(weight_N, settings.weight_cap).astype(np.float32)
    return pool.rest(keep_N[pool.rows_R], weight_N=weight_N)


POLICY = Policy(
    name="custom",
    summary="what a function of your own says, `target`",
    takes=("target", "args", "max_weight", "scoring"),
    check=_check,
    reads=None,
    choose=_choose,
)
