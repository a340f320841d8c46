"""Where MLflow is. In no stage key; neither MLflow nor torch is imported."""

from __future__ import annotations

from pydantic import Field

from epochal.data.types import Frozen


class TrackingConfig(Frozen):
    """Where curves, parameters and models are delivered."""

    uri: str | None = Field(
        default=None,
        min_length=1,
        examples=["http://127.0.0.1:5000", "sqlite:////data/mlflow.db"],
        description="MLflow's tracking address; none: MLFLOW_TRACKING_URI, else the server that "
        "`epochal up` started, else sqlite:///$HOME/.epochal/mlflow.db",
    )
    experiment: str = Field(
        default="epochal",
        min_length=1,
        max_length=500,
        description="MLflow's experiment that holds the run",
    )
    log_every_updates: int = Field(
        default=1,
        ge=1,
        description="deliver every n-th update and each epoch's last; 1: all, as a row costs "
        "0.1 ms beside the training. The store's tables always hold every update",
    )
