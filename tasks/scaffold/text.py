"""Text to be continued: how much of it there is, and a project that learns it, byte by byte."""

from __future__ import annotations

from pathlib import Path

from epochal.data.datasets.text import TEXTS, text
from epochal.data.errors import DataError
from epochal.data.files.named import list_files
from epochal.tasks.scaffold.project import (
    OwnModel,
    Project,
    last_part,
    percent,
    project_name,
    render,
    seen_from,
)

WINDOW = 128
FRACTION = 0.1
BYTES = 256


def text_project(path: str, *, name: str | None, folder: Path, model: OwnModel | None) -> Project:
    """The config, and a small GPT where there is no `model`. Raises DataError."""
    name = project_name(name, instead=last_part(path))
    files = list_files(path, suffixes=(*TEXTS, ".bin", ".npy"), name="text")
    if not files[0].name.lower().endswith(TEXTS):
        raise DataError(
            f"{path}: holds tokens ({files[0].name}), whose number of different ones a model must "
            "know; expected .txt, .text or .md. docs/data.md, Text, has the config for tokens"
        )
    split = {"fraction": FRACTION, "seed": 0}
    args = {"path": seen_from(path, folder), "window": WINDOW}
    parts = {
        part: len(text(path, WINDOW, split={"part": part, **split}))
        for part in ("train", "validation")
    }
    config = render(
        "text.yaml",
        name=name,
        size=files.total_bytes,
        path=seen_from(path, folder),
        model=OwnModel("model:SmallGPT", {"vocabulary": BYTES, "window": WINDOW})
        if model is None
        else model,
        own_model=model is not None,
        train={**args, "split": {"part": "train", **split}},
        validation={**args, "split": {"part": "validation", **split}},
        epochs=10 if files.total_bytes < 10_000_000 else 2,  # noqa: PLR2004 - bytes
    )
    written = {f"{name}.yaml": config}
    if model is None:
        written["model.py"] = render("text.model.py")
    count = "1 file" if len(files) == 1 else f"{len(files):,} files"
    return Project(
        kind="text",
        name=name,
        files=written,
        found=[
            ("text", f"{files.total_bytes:,} bytes in {count} of {path}"),
            ("tokens", f"bytes, in windows of {WINDOW}"),
            (
                "windows",
                f"{parts['train']:,}, and {parts['validation']:,} ({percent(FRACTION)}) held out",
            ),
        ],
    )
