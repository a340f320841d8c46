"""Models written for other trainers, as targets of a config: Lightning, Hugging Face, timm.

docs/moving-in.md shows each in a few lines, and what is not carried over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from epochal.data.lazy import lazy_names

__all__ = [
    "hugging_face",
    "hugging_face_collate",
    "hugging_face_step",
    "hugging_face_texts",
    "lightning",
    "lightning_collate",
    "lightning_data",
    "lightning_optimizer",
    "lightning_schedule",
    "lightning_step",
    "timm",
]

if TYPE_CHECKING:
    from epochal.tasks.adapters.hugging_face_models import hugging_face
    from epochal.tasks.adapters.hugging_face_steps import hugging_face_step
    from epochal.tasks.adapters.lightning_loaders import lightning_collate, lightning_data
    from epochal.tasks.adapters.lightning_modules import lightning
    from epochal.tasks.adapters.lightning_optimizers import (
        lightning_optimizer,
        lightning_schedule,
    )
    from epochal.tasks.adapters.lightning_steps import lightning_step
    from epochal.tasks.adapters.text_tables import hugging_face_collate, hugging_face_texts
    from epochal.tasks.adapters.timm_models import timm
else:
    _HERE = "epochal.tasks.adapters"
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            f"{_HERE}.text_tables": ("hugging_face_collate", "hugging_face_texts"),
            f"{_HERE}.hugging_face_models": ("hugging_face",),
            f"{_HERE}.hugging_face_steps": ("hugging_face_step",),
            f"{_HERE}.lightning_loaders": ("lightning_collate", "lightning_data"),
            f"{_HERE}.lightning_modules": ("lightning",),
            f"{_HERE}.lightning_optimizers": ("lightning_optimizer", "lightning_schedule"),
            f"{_HERE}.lightning_steps": ("lightning_step",),
            f"{_HERE}.timm_models": ("timm",),
        },
    )
