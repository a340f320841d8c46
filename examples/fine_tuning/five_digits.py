"""The digits from 5 to 9, as classes from 0 to 4; `make_weights.py` trains on the others."""

from torch.utils.data import TensorDataset

from epochal.data.datasets import digits


def five_digits(split: str, first: int = 5) -> TensorDataset:
    images_N1HW, labels_N = digits(split).tensors
    chosen_N = (labels_N >= first) & (labels_N < first + 5)
    return TensorDataset(images_N1HW[chosen_N], labels_N[chosen_N] - first)
