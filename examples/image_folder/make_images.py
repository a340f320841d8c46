"""Writes ./images/<digit>/<number>.png: run it once, before `epochal train`."""

from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

FOLDER = Path(__file__).parent / "images"
IMAGES = 400  # of scikit-learn's 1,797


def main() -> None:
    digits = load_digits()
    for number in range(IMAGES):
        file = FOLDER / str(digits.target[number]) / f"{number:04}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels_HW = (digits.images[number] * 255 / 16).astype("uint8")
        Image.fromarray(pixels_HW).convert("RGB").resize((32, 32)).save(file)


if __name__ == "__main__":
    main()
