"""Random observations of an epoch, as the engine hands them over."""

import numpy as np


def observations(ids, *, seed=0, labels=None, easy=0.6):
    """Columns of one epoch for these sample ids; `easy` is the share of right predictions."""
    rng = np.random.default_rng(seed)
    count = len(ids)
    return {
        "sample_id": np.asarray(ids, dtype=np.int64),
        "label": rng.integers(0, 3, count) if labels is None else np.asarray(labels),
        "loss": rng.exponential(size=count).astype(np.float32),
        "confidence": rng.uniform(0.3, 1, count).astype(np.float32),
        "p_true": rng.random(count).astype(np.float32),
        "margin": rng.normal(size=count).astype(np.float32),
        "el2n": rng.random(count).astype(np.float32),
        "correct": rng.random(count) < easy,
    }


def without_classes(ids):
    """What a regression observes: only the losses."""
    found = observations(ids)
    for name in ("confidence", "p_true", "margin", "el2n"):
        found[name] = np.full(len(ids), np.nan, dtype=np.float32)
    found["label"] = np.full(len(ids), -1)
    found["correct"] = np.zeros(len(ids), dtype=bool)
    return found
