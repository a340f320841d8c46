"""A record of a stage as training would leave it, made by hand."""

from epochal.data.hashing import bytes_sha256
from epochal.data.stage_store.records import StageRecord

KEY = "0123456789abcdef" * 4


OTHER = "f" * 64


MODEL = b"weights of the model"


TABLE = b"rows of the table"


def make_record(stages, *, key=KEY, model=MODEL, environment="cpu", consumed=OTHER, loss=0.1 + 0.2):
    return StageRecord(
        stage="train",
        epoch=3,
        key=key,
        inputs={"optimizer": {"lr": 3e-3}},
        environment={"device": environment},
        environment_digest=bytes_sha256(environment.encode()),
        consumed={"parent/model": consumed},
        artifacts={
            "model": stages.put_artifact(key, "safetensors", model),
            "observations": stages.put_artifact(key, "parquet", TABLE),
        },
        values={"train/loss": loss, "none": None},
    )
