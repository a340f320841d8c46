"""A commit inside an epoch, made by hand."""

import torch
from support.numbers.tiny_model import save_tensors

from epochal.data.stage_store.mid_epoch import MidEpochStore
from epochal.data.store.hashed_files import write_checksummed

KEY = "a" * 64


def commit(store, micro_steps, value=None, **body):
    with store.scratch() as scratch:
        tensors = {"x": torch.full((4,), float(micro_steps if value is None else value))}
        written = save_tensors(tensors, scratch / "x.safetensors", write=write_checksummed)
        MidEpochStore(store, KEY).commit(micro_steps, written, body)
