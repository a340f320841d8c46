"""Writes ./pretrained.safetensors: the weights after two rounds on the digits from 0 to 4."""

from pathlib import Path

import torch
from five_digits import five_digits
from model import Classifier
from safetensors.torch import save_file
from torch.nn import functional
from torch.utils.data import DataLoader

FILE = Path(__file__).parent / "pretrained.safetensors"


def main() -> None:
    torch.manual_seed(0)
    model = Classifier(num_classes=5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(2):
        for image_B1HW, label_B in DataLoader(five_digits("train", 0), 32, shuffle=True):
            optimizer.zero_grad()
            functional.cross_entropy(model(image_B1HW), label_B).backward()
            optimizer.step()
    save_file(model.state_dict(), FILE)


if __name__ == "__main__":
    main()
