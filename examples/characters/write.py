"""Goes on writing: python write.py WEIGHTS "def main(" """

import sys

import torch
from library import CHARACTERS, OTHER
from model import CharacterGPT
from safetensors.torch import load_file

LENGTH = 128


def main(weights: str, text: str, count: int = 300) -> None:
    model = CharacterGPT(width=64, depth=2, length=LENGTH).eval()
    model.load_state_dict(load_file(weights))
    draw = torch.Generator().manual_seed(7)
    tokens = [CHARACTERS.index(one) for one in text]
    for _ in range(count):
        with torch.no_grad():
            logits_V = model(torch.tensor([tokens[-LENGTH:]]))[0, :OTHER, -1]
        chances_V = torch.softmax(logits_V / 0.7, dim=0)
        tokens.append(int(torch.multinomial(chances_V, 1, generator=draw)))
    print("".join(CHARACTERS[one] for one in tokens))


if __name__ == "__main__":
    main(*sys.argv[1:3])
