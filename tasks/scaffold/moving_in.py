"""A LightningModule, or a model of Hugging Face, that a person has: the config that trains it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epochal.data.errors import DataError, InputError, TargetError
from epochal.data.files.columns import ColumnReader, is_text
from epochal.data.types import Target
from epochal.tasks.scaffold.own_data import FoundData, look_at_data
from epochal.tasks.scaffold.project import (
    Project,
    last_part,
    listed,
    project_name,
    render,
    seen_from,
)
from epochal.tasks.user_code.targets import call_target

BATCH_SIZE = 32
EPOCHS = 10
_TEXTS = ("text", "sentence", "review", "content", "body", "document", "question")
_LABELS = ("label", "labels", "target", "class", "category", "sentiment", "y")
ADAPTERS = "epochal.tasks.adapters"


def lightning_project(
    source: str, data: str, *, args: Mapping[str, Any], name: str | None, folder: Path
) -> Project:
    """The config for a LightningModule and its data: a LightningDataModule, or a data set.

    Raises InputError for what is not carried over and would change numbers, named one by one.
    """
    from epochal.tasks.adapters.lightning_loaders import lightning_data
    from epochal.tasks.adapters.lightning_modules import lightning
    from epochal.tasks.adapters.lightning_optimizers import configured
    from epochal.tasks.scaffold.own_code import bases_of

    where = folder.absolute()
    target = Target(target=source, args=dict(args))
    module = call_target(target, field="SOURCE", folder=where)
    without = _without(module)
    lightning(module, without)
    name = project_name(name, instead=source.rpartition(":")[2].lower())
    batch_size, extra = BATCH_SIZE, {}
    if "LightningDataModule" in bases_of(data, folder=where):
        shown: dict[str, Any] = {"target": data}
        made = call_target(Target(target=data), field="--data", folder=where)
        from epochal.tasks.adapters.lightning_loaders import loader_of

        loader = loader_of(made, "train")
        batch_size, count = loader.batch_size or BATCH_SIZE, len(lightning_data(made))
        train = {"target": f"{ADAPTERS}:lightning_data", "args": {"module": shown, "part": "train"}}
        validation = {
            "target": f"{ADAPTERS}:lightning_data",
            "args": {"module": shown, "part": "validation"},
        }
        item = f"{count:,} of {data}"
    else:
        found: FoundData = look_at_data(data, {}, where)
        count, item = found.num_train, f"{found.num_train:,} of {data}; one is {found.item}"
        train, validation = found.targets()
        if not found.has_parts:
            extra["parts.py"] = found.parts_file()
            count = math.ceil(0.8 * count)
    updates = math.ceil(count / batch_size)
    optimizer = configured(module, updates=updates * EPOCHS, epochs=EPOCHS)
    shown_module = {"target": source, **({"args": dict(args)} if args else {})}
    config = render(
        "lightning.yaml",
        name=name,
        source=source,
        module=shown_module,
        without=without,
        lr=optimizer.rate,
        scheduler=optimizer.scheduler is not None,
        described=optimizer.described,
        schedule=optimizer.schedule(shown_module, updates=updates, epochs=EPOCHS),
        train=train,
        validation=validation,
        batch_size=batch_size,
        epochs=EPOCHS,
    )
    kind = type(optimizer.optimizer).__name__
    notes = [f"the run does without: {', '.join(without)} (docs/moving-in.md)"] if without else []
    return Project(
        kind="lightning",
        name=name,
        files={f"{name}.yaml": config, **extra},
        found=[
            ("module", source),
            ("items", item),
            ("optimizer", f"{kind}, rate {optimizer.rate:g}"),
            ("schedule", optimizer.described or "none: the rate stays"),
        ],
        notes=notes,
    )


def _without(module: Any) -> list[str]:
    """What of the module no run calls; the config names it."""
    from epochal.tasks.adapters.lightning_modules import not_carried

    return list(not_carried(module))


def text_classes_project(
    source: str, data: str, *, target: str | None, name: str | None, folder: Path
) -> Project:
    """The config that fine-tunes a model of Hugging Face on the texts of a table.

    source: a name of the hub, or a folder. Raises DataError, InputError, naming the column.
    """
    reader = ColumnReader(data, {}, None)
    rows = reader.everything()
    texts = [one for one in rows.column_names if is_text(rows.column(one).type)]
    label = target or _named(rows.column_names, _LABELS)
    if label is None or label not in rows.column_names:
        raise InputError(
            f"--target {label or ''}: which column of {data} holds the labels? It has "
            f"{listed(rows.column_names, at_most=30)}"
        )
    usable = [one for one in texts if one != label]
    text = _named(usable, _TEXTS) or (
        max(usable, key=lambda one: _length(rows, one)) if usable else None
    )
    if text is None:
        raise DataError(f"{data}: no column beside {label!r} holds texts")
    known = rows.column(label).unique().to_pylist()
    count = rows.num_rows
    if any(one is None for one in known):
        raise DataError(f"{data}, column {label!r}: some rows have no label")
    numbers = any(isinstance(one, float) and not one.is_integer() for one in known)
    if not numbers and len(known) > count // 2:
        raise DataError(
            f"{data}, column {label!r}: {len(known):,} different labels in {count:,} rows; name "
            "another with --target"
        )
    try:
        from epochal.tasks.adapters.text_tables import tokenizer_of

        tokenizer_of(source)
    except TargetError as error:
        raise InputError(f"SOURCE: {error}") from error
    place = seen_from(source, folder) if Path(source).is_dir() else source
    name = project_name(name, instead=last_part(source))
    table = {
        "path": seen_from(data, folder), "tokenizer": place, "text": text, "label": label,
    }  # fmt: skip
    config = render(
        "hugging_face.yaml",
        name=name,
        source=place,
        is_folder=place != source or place.startswith((".", "/")),
        count=count,
        path=table["path"],
        num_labels=1 if numbers else len(known),
        train={**table, "split": {"part": "train", "fraction": 0.2}},
        validation={**table, "split": {"part": "validation", "fraction": 0.2}},
        numbers=numbers,
    )
    return Project(
        kind="huggingface",
        name=name,
        files={f"{name}.yaml": config},
        found=[
            ("model", source),
            ("rows", f"{count:,} in {data}"),
            ("text", text),
            ("label", f"{label}: a number" if numbers else f"{label}: {len(known)} classes"),
            ("held out", f"{round(0.2 * count):,} rows for validation"),
        ],
    )


def _named(names: Any, wanted: tuple[str, ...]) -> str | None:
    lower = {str(one).lower(): one for one in names}
    return next((lower[one] for one in wanted if one in lower), None)


def _length(rows: Any, name: str) -> float:
    import pyarrow.compute as pc

    return float(pc.mean(pc.utf8_length(rows.column(name))).as_py() or 0.0)
