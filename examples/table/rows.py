"""The rows of a Parquet file as tensors."""

# N rows, F features

import numpy as np
import torch
from pyarrow import parquet
from torch.utils.data import TensorDataset

TARGET = "malignant"


def rows(path: str, split: str) -> TensorDataset:
    """Standardised features, float32 of shape (N, F), and the class, 0 or 1, of shape (N,)."""
    table = parquet.read_table(path)
    features_NF = np.stack([table[name] for name in table.column_names if name != TARGET], axis=1)
    train_N = np.arange(len(features_NF)) % 4 != 0
    mean_F, std_F = features_NF[train_N].mean(0), features_NF[train_N].std(0)
    chosen_N = train_N if split == "train" else ~train_N
    features_NF = ((features_NF - mean_F) / std_F)[chosen_N].astype(np.float32)
    target_N = table[TARGET].to_numpy()[chosen_N].astype(np.int64)
    return TensorDataset(torch.from_numpy(features_NF), torch.from_numpy(target_N))
