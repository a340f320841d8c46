"""The sampling policies by name: a file for each, and a line here. Imports no NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from epochal.data.policies import (
    curriculum,
    custom,
    cvnets,
    easy_skip,
    hard_mining,
    importance,
    infobatch,
    kakurenbo,
    random,
    selective_backprop,
    seta,
)
from epochal.data.policies.shared.policy import Policy

POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        Policy(name="none", summary="all samples in every epoch"),
        easy_skip.POLICY,
        importance.POLICY,
        infobatch.POLICY,
        kakurenbo.POLICY,
        cvnets.POLICY,
        seta.POLICY,
        hard_mining.POLICY,
        selective_backprop.POLICY,
        curriculum.POLICY,
        random.POLICY,
        custom.POLICY,
    )
}
"""Name → policy, in the order in which messages list them."""


class OwnFields(
    custom.CustomFields, seta.SetaFields, cvnets.CvnetsFields, importance.ImportanceFields
):
    """The settings of all policies."""


if TYPE_CHECKING:
    PolicyName = str
else:
    PolicyName = Literal[tuple(POLICIES)]
