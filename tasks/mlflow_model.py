"""The name that models in MLflow were delivered with before: `loader_module` in their MLmodel."""

from epochal.tasks.tracking.model_folder import _load_pyfunc

__all__ = ["_load_pyfunc"]
