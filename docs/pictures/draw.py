"""Draws the pictures of docs/concepts.md, as SVG beside this file: python docs/pictures/draw.py"""

from html import escape
from pathlib import Path

HERE = Path(__file__).parent
INK, GREY, LINE = "#1f2933", "#5f6b76", "#8a96a3"
DONE, NEW, DATA, PLAIN = "#d8eedd", "#ffe3b3", "#dbe7fb", "#f1f3f5"


class Picture:
    """Boxes, arrows and words on a white page, so that it can be read in the dark too."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.title = title
        start = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
            f'width="{width}" font-family="system-ui, sans-serif" font-size="14">'
        )
        tip = (
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            f'markerHeight="7" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="{LINE}"/>'
            "</marker></defs>"
        )
        page = f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>'
        self.parts = [start, f"<title>{escape(title)}</title>", tip, page]

    def box(self, x, y, w, h, words, *, fill=PLAIN, dashed=False, size=14) -> None:
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="6" fill="{fill}" '
            f'stroke="{LINE}"{dash}/>'
        )
        lines = words.split("\n")
        first = y + h / 2 - (len(lines) - 1) * size * 0.6
        for number, line in enumerate(lines):
            self.text(x + w / 2, first + number * size * 1.2, line, anchor="middle", size=size)

    def text(self, x, y, words, *, anchor="start", size=14, fill=INK, bold=False) -> None:
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x}" y="{y}" text-anchor="{anchor}" dominant-baseline="middle" '
            f'font-size="{size}" fill="{fill}"{weight}>{escape(words)}</text>'
        )

    def arrow(self, *points, dashed=False, tip=True) -> None:
        path = " L".join(f"{x},{y}" for x, y in points)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        end = ' marker-end="url(#tip)"' if tip else ""
        self.parts.append(
            f'<path d="M{path}" fill="none" stroke="{LINE}" stroke-width="1.6"{dash}{end}/>'
        )

    def __str__(self) -> str:
        return "\n".join([*self.parts, "</svg>", ""])


def stages() -> Picture:
    page = Picture(760, 250, "A run as stages: initialise, then train, validate and mine per epoch")
    page.box(20, 40, 100, 44, "initialise")
    for epoch, x in enumerate((170, 370, 570)):
        page.box(x, 40, 120, 44, f"train {epoch}", fill=NEW)
        page.box(x, 120, 120, 36, f"validate {epoch}", fill=DONE)
        page.box(x, 190, 120, 36, f"mine {epoch}", fill=DATA)
        page.arrow((x + 60, 84), (x + 60, 120))
        page.arrow((x + 20, 84), (x + 20, 100), (x - 14, 100), (x - 14, 208), (x, 208))
        page.arrow((x - 50, 62), (x, 62)) if epoch == 0 else page.arrow((x - 80, 62), (x, 62))
        if epoch:
            page.arrow((x - 80, 208), (x - 44, 208), (x - 44, 76), (x, 76), dashed=True)
    page.arrow((690, 62), (740, 62))
    page.text(430, 22, "checkpoint → checkpoint", anchor="middle", size=12, fill=GREY)
    page.text(430, 240, "dashed: the sample table, which says who trains next", anchor="middle",
              size=12, fill=GREY)  # fmt: skip
    return page


def keys() -> Picture:
    page = Picture(760, 300, "What is in the key of an epoch, and what is not")
    inputs = (
        "key of the epoch before it",
        "the config that acts in this epoch:\nrate from 5 to 6, model, loss, batch size …",
        "content of the data",
        "your source: the target's file\nand what it imports of yours",
        "the seed",
    )
    y = 16
    for words in inputs:
        height = 52 if "\n" in words else 36
        page.box(20, y, 300, height, words, fill=DATA, size=13)
        page.arrow((320, y + height / 2), (400, 140))
        y += height + 12
    page.box(400, 116, 130, 48, "sha256", fill=NEW)
    page.arrow((530, 140), (590, 140))
    page.box(590, 116, 150, 48, "key of\ntrain · epoch 5", fill=DONE)
    page.text(400, 196, "in no key: they change no number", size=13, bold=True)
    for number, words in enumerate(
        (
            "names, the store, tracking",
            "the number of epochs in all",
            "workers, threads, processes, launcher",
            "where and when it was interrupted",
        )
    ):
        page.text(400, 220 + 20 * number, f"· {words}", size=13, fill=GREY)
    return page


def sharing() -> Picture:
    page = Picture(760, 230, "Runs share the epochs that have the same keys")
    for epoch in range(16):
        x = 20 + 44 * epoch
        if epoch < 9:
            page.box(x, 90, 36, 36, str(epoch), fill=DONE)
        else:
            page.box(x, 40, 36, 36, str(epoch), fill=DONE if epoch < 12 else NEW)
            if epoch < 12:
                page.box(x, 150, 36, 36, str(epoch), fill=NEW)
        if 0 < epoch < 9:
            page.arrow((x - 8, 108), (x, 108), tip=False)
        elif epoch > 9:
            page.arrow((x - 8, 58), (x, 58), tip=False)
            if epoch < 12:
                page.arrow((x - 8, 168), (x, 168), tip=False)
    page.arrow((408, 108), (416, 58), tip=False)
    page.arrow((408, 108), (416, 168), tip=False)
    page.text(20, 22, "12 epochs at a constant rate, then 16: four are computed.", size=13)
    page.text(566, 160, "its rate falls from", size=13)
    page.text(566, 178, "epoch 9 on: three", size=13)
    page.text(20, 212, "green: in the store already · orange: computed now", size=12, fill=GREY)
    return page


def commits() -> Picture:
    page = Picture(760, 230, "Commits inside an epoch: after a kill it goes on from the last one")
    for row, (y, words) in enumerate(
        ((40, "killed"), (110, "the same\ncommand"), (180, "unbroken"))
    ):
        page.text(20, y + (9 if "\n" in words else 16), words.split("\n")[0], size=13)
        if "\n" in words:
            page.text(20, y + 26, words.split("\n")[1], size=13)
        for step in range(12):
            x = 110 + 42 * step
            if (row == 0 and step > 7) or (row == 1 and step < 6):
                continue
            page.box(x, y, 36, 32, str(step), fill=DONE if row == 2 else NEW)
        for after in (2, 5, 8):
            if (row == 0 and after < 6) or (row == 1 and after == 8):
                x = 110 + 42 * (after + 1) - 3
                page.arrow((x, y - 6), (x, y + 38), tip=False)
                page.text(x, y - 13, "commit", anchor="middle", size=11, fill=GREY)
    page.text(110 + 42 * 8 + 8, 57, "✗ kill -9", size=14, bold=True)
    page.text(110 + 42 * 6 - 12, 126, "from the last commit on →", size=12, fill=GREY, anchor="end")
    for y in (126, 196):
        page.arrow((110 + 42 * 12, y), (654, y))
    page.text(660, 161, "same bytes", size=14, bold=True)
    page.arrow((654, 126), (690, 126), (690, 148), tip=False)
    page.arrow((654, 196), (690, 196), (690, 172), tip=False)
    return page


def trainers() -> Picture:
    page = Picture(760, 290, "Two kinds of processes: the flow's, and trainers with your code")
    page.box(20, 30, 230, 190, "", fill="#ffffff")
    page.text(135, 50, "the flow's process", anchor="middle", bold=True)
    for number, words in enumerate(
        ("Prefect's tasks", "MLflow", "mining, tables", "hashing, commits")
    ):
        page.box(40, 70 + 36 * number, 190, 28, words, size=13)
    for number, y in enumerate((30, 130)):
        page.box(470, y, 270, 90, "", fill="#ffffff")
        page.text(605, y + 20, f"trainer {number}", anchor="middle", bold=True)
        page.box(485, y + 36, 115, 38, "your model,\nyour loss", fill=NEW, size=12)
        page.box(610, y + 36, 115, 38, "your data,\nits workers", fill=NEW, size=12)
    page.arrow((250, 75), (470, 75))
    page.text(360, 62, "small messages", anchor="middle", size=12, fill=GREY)
    page.arrow((470, 105), (250, 105))
    page.text(360, 120, "shared memory", anchor="middle", size=12, fill=GREY)
    page.arrow((250, 160), (470, 160))
    page.arrow((470, 185), (250, 185))
    page.text(605, 236, "no client of anything: nobody else", anchor="middle", size=12, fill=GREY)
    page.text(605, 252, "draws from your random numbers", anchor="middle", size=12, fill=GREY)
    page.box(60, 246, 150, 34, "the store", fill=DATA)
    page.arrow((135, 220), (135, 246))
    return page


PICTURES = (stages, keys, sharing, commits, trainers)


if __name__ == "__main__":
    for drawn in PICTURES:
        (HERE / f"{drawn.__name__}.svg").write_text(str(drawn()))
