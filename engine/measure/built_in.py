"""The built-in metrics beside accuracy, by torchmetrics where it is exact; imported when used.

Each is exact over the data set whatever the batch size. torchmetrics takes the softmax of a batch
only if some number in it lies outside [0, 1], which depends on the batch: so it is given
probabilities. Its R² calls sums below 1e-4 zero, and its perplexity takes the logarithm of rounded
probabilities: what is a sum or a count is done here, in float64 and in integers.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from epochal.data.errors import TargetError
from epochal.engine.model.batches import described

# B samples of a batch, C classes, N elements whose class counts; … further dimensions

MAX_KEPT_CLASSES = 100
"""Of a confusion matrix that a record holds: 10,000 numbers."""
_BINS = 15  # Guo et al. 2017, arXiv:1706.04599


def make(name: str) -> Any:
    """A new metric of that name. KeyError if there is none."""
    return _MAKERS[name](name)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.device.type == "mps" else tensor.double()


class _OfClasses:
    """Gathers what is classified: logits (B, C, …), or one logit of the second of two classes.

    Targets below 0 do not count.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.num_classes = 0
        self.single = False
        """Whether the outputs are one logit, so that the second class alone is asked about."""

    def update(self, outputs: Any, target: Any) -> None:
        """Takes one batch. Raises TargetError if it is no classification."""
        logits_NC, label_N = self._flat(outputs, target)
        if not self.num_classes:
            self.num_classes = logits_NC.shape[1]
            self.begin(logits_NC.device)
        self.take(logits_NC, label_N)

    def begin(self, device: torch.device) -> None:
        """The number of classes is known now."""

    def take(self, logits_NC: Tensor, label_N: Tensor) -> None:
        """Takes elements, in float64 where the device has it."""
        raise NotImplementedError

    def _flat(self, outputs: Any, target: Any) -> tuple[Tensor, Tensor]:
        given = isinstance(outputs, Tensor) and isinstance(target, Tensor)
        if given and outputs.is_floating_point():
            whole = not target.is_floating_point()
            several = outputs.ndim == target.ndim + 1 and outputs.shape[1] > 1
            if several and whole and outputs.shape[:1] + outputs.shape[2:] == target.shape:
                logits_NC = outputs.movedim(1, -1).reshape(-1, outputs.shape[1])
                return self._counted(logits_NC, target.reshape(-1))
            if outputs.numel() == target.numel() == target.shape[0]:
                self.single = True
                logit_N = outputs.reshape(-1)
                logits_N2 = torch.stack([torch.zeros_like(logit_N), logit_N], dim=1)
                return self._counted(logits_N2, self._binary(target.reshape(-1)))
        raise TargetError(
            f"metrics.validation: {self.name!r} needs outputs of shape (B, C, …) and integer "
            f"targets of shape (B, …), or one logit for each target of 0 or 1, found "
            f"{described(outputs)} and {described(target)}; set metrics.validation to [loss], "
            "or to metrics that fit"
        )

    def _binary(self, target_N: Tensor) -> Tensor:
        label_N = target_N.long()
        if bool(((label_N != target_N) | (label_N > 1)).any()):
            raise TargetError(
                f"metrics.validation: {self.name!r} found targets other than 0 and 1 for outputs "
                "of one number; use metrics of regression: mse, mae or r2"
            )
        return label_N

    @staticmethod
    def _counted(logits_NC: Tensor, label_N: Tensor) -> tuple[Tensor, Tensor]:
        counted_N = label_N >= 0
        return _wide(logits_NC[counted_N]), label_N[counted_N].long()


class Ranked(_OfClasses):
    """auroc or average_precision of each class against the others; the mean over the classes.

    Of one logit for two classes it is that of the second one.
    """

    def begin(self, device: torch.device) -> None:
        """Keeps all probabilities: a curve over fixed thresholds would be no exact one."""
        from torchmetrics import classification

        kinds: dict[str, Any] = {
            "auroc": classification.MulticlassAUROC,
            "average_precision": classification.MulticlassAveragePrecision,
        }
        made = kinds[self.name](
            num_classes=self.num_classes, average="none", thresholds=None, validate_args=False
        )
        self._metric = made.to(device)
        self._true_C = torch.zeros(self.num_classes, dtype=torch.int64, device=device)

    def take(self, logits_NC: Tensor, label_N: Tensor) -> None:
        """Probabilities and classes."""
        self._metric.update(logits_NC.softmax(1), label_N)
        self._true_C += label_N.bincount(minlength=self.num_classes)

    def compute(self) -> float:
        """NaN where no class could be measured."""
        if not self.num_classes or not int(self._true_C.sum()):
            return math.nan
        with warnings.catch_warnings():
            # Of classes without a sample, which are left out below.
            warnings.filterwarnings("ignore", category=UserWarning, module="torchmetrics")
            value_C = torch.as_tensor(self._metric.compute()).double()
        measured_C = self._true_C > 0
        if self.name == "auroc":
            measured_C &= self._true_C < self._true_C.sum()
        return _mean(value_C, measured_C, single=self.single)


class Counted(_OfClasses):
    """f1, precision or recall of each class, and the mean over those that occur; exact counts.

    For f1, precision and recall a class occurs if it is true or predicted once, for
    balanced_accuracy, the mean recall, if it is true once.
    """

    def begin(self, device: torch.device) -> None:
        """Counts of elements by class: true, predicted, both."""
        self._true_C = torch.zeros(self.num_classes, dtype=torch.int64, device=device)
        self._predicted_C, self._right_C = self._true_C.clone(), self._true_C.clone()

    def take(self, logits_NC: Tensor, label_N: Tensor) -> None:
        """Counts."""
        predicted_N = logits_NC.argmax(1)
        self._true_C += label_N.bincount(minlength=self.num_classes)
        self._predicted_C += predicted_N.bincount(minlength=self.num_classes)
        right_N = label_N[predicted_N == label_N]
        self._right_C += right_N.bincount(minlength=self.num_classes)

    def compute(self) -> float:
        """In [0, 1]; NaN if nothing counted."""
        if not self.num_classes or not int(self._true_C.sum()):
            return math.nan
        true_C, predicted_C, right_C = (
            count_C.cpu().double() for count_C in (self._true_C, self._predicted_C, self._right_C)
        )
        of_C = {"precision": predicted_C, "f1": (true_C + predicted_C) / 2}.get(self.name, true_C)
        occurs_C = true_C > 0
        if self.name != "balanced_accuracy":
            occurs_C |= predicted_C > 0
        single = self.single and self.name != "balanced_accuracy"
        return _mean(right_C / of_C.clamp(min=0.5), occurs_C, single=single)


def _mean(value_C: Tensor, among_C: Tensor, *, single: bool) -> float:
    """Over the classes among which it is taken; single: of the second class alone."""
    if single:
        among_C = among_C.clone()
        among_C[0] = False
    return float(value_C[among_C].mean()) if bool(among_C.any()) else math.nan


class ConfusionMatrix(_OfClasses):
    """How often each class was taken for which; as numbers, the recall of each class."""

    def begin(self, device: torch.device) -> None:
        """Counts of (true, predicted)."""
        from torchmetrics.classification import MulticlassConfusionMatrix

        made = MulticlassConfusionMatrix(num_classes=self.num_classes, validate_args=False)
        self._metric = made.to(device)

    def take(self, logits_NC: Tensor, label_N: Tensor) -> None:
        """Counts."""
        self._metric.update(logits_NC.argmax(1), label_N)

    def compute(self) -> dict[str, float]:
        """`recall_<class>` of each class, NaN where it does not occur."""
        if not self.num_classes:
            return {}
        count_CC = self._metric.compute().double()
        recall_C = (count_CC.diagonal() / count_CC.sum(1)).tolist()
        return {f"recall_{label}": value for label, value in enumerate(recall_C)}

    def matrix(self) -> list[list[int]] | None:
        """Rows are true classes, columns predicted ones; None for more than 100 classes."""
        if not 0 < self.num_classes <= MAX_KEPT_CLASSES:
            return None
        rows: list[list[int]] = self._metric.compute().tolist()
        return rows


class CalibrationError(_OfClasses):
    """Mean distance of confidence and accuracy over 15 bins of confidence."""

    def begin(self, device: torch.device) -> None:
        """Keeps confidences: bins do not depend on the batch."""
        from torchmetrics.classification import MulticlassCalibrationError

        made = MulticlassCalibrationError(
            num_classes=self.num_classes, n_bins=_BINS, validate_args=False
        )
        self._metric = made.to(device)
        self._count = 0

    def take(self, logits_NC: Tensor, label_N: Tensor) -> None:
        """Confidences."""
        if len(label_N):
            self._metric.update(logits_NC.softmax(1), label_N)
        self._count += len(label_N)

    def compute(self) -> float:
        """In [0, 1]; NaN if nothing counted."""
        return float(self._metric.compute()) if self.num_classes and self._count else math.nan


class Perplexity(_OfClasses):
    """exp of the mean cross entropy over all elements."""

    def begin(self, device: torch.device) -> None:
        """Sums."""
        self._sum = torch.zeros((), dtype=torch.float64, device=device)
        self._count = 0

    def take(self, logits_NC: Tensor, label_N: Tensor) -> None:
        """Adds."""
        self._sum += functional.cross_entropy(logits_NC, label_N, reduction="sum")
        self._count += len(label_N)

    def compute(self) -> float:
        """From 1; NaN if nothing counted."""
        if not self.num_classes or not self._count:
            return math.nan
        return float((self._sum / self._count).exp())


class Regression:
    """mse, mae and r2 over all elements; r2 by output, then the mean over the outputs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._sums: dict[str, Tensor] = {}
        self._shift: Tensor | None = None
        self._rows = 0

    def update(self, outputs: Any, target: Any) -> None:
        """Takes outputs and targets, numbers of one shape. Raises TargetError."""
        if not (
            isinstance(outputs, Tensor)
            and isinstance(target, Tensor)
            and outputs.is_floating_point()
            and outputs.numel() == target.numel()
            and outputs.shape[:1] == target.shape[:1]
        ):
            raise TargetError(
                f"metrics.validation: {self.name!r} needs outputs and targets of one shape, found "
                f"{described(outputs)} and {described(target)}; set metrics.validation to "
                "[loss], or to metrics that fit"
            )
        rows = len(target)
        target_BD = _wide(target.reshape(rows, -1))
        error_BD = _wide(outputs.reshape(rows, -1)) - target_BD
        if self._shift is None and rows:
            self._shift = target_BD[0].clone()  # sums of squares near 0 lose no digits
        if self._shift is None:
            return
        moved_BD = target_BD - self._shift
        for name, part in (
            ("error", error_BD.abs()),
            ("square", error_BD**2),
            ("target", moved_BD),
            ("target_square", moved_BD**2),
        ):
            self._sums[name] = self._sums.get(name, 0) + part.sum(0)
        self._rows += rows

    def compute(self) -> float:
        """NaN if nothing was seen, and for an r2 of targets that are all the same."""
        if not self._rows:
            return math.nan
        sums = self._sums
        if self.name == "r2":
            spread_D = sums["target_square"] - sums["target"] ** 2 / self._rows
            return float((1 - sums["square"] / spread_D).mean()) if spread_D.all() else math.nan
        return float(sums["error" if self.name == "mae" else "square"].mean() / self._rows)


_MAKERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("auroc", "average_precision"), Ranked),
    **dict.fromkeys(("f1", "precision", "recall", "balanced_accuracy"), Counted),
    "confusion_matrix": ConfusionMatrix,
    "calibration_error": CalibrationError,
    "perplexity": Perplexity,
    **dict.fromkeys(("mse", "mae", "r2"), Regression),
}
