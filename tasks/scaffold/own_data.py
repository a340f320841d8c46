"""A data set of one's own: built and looked at where there is one, else a stub to fill in."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epochal.data.datasets.hugging_face import adapted
from epochal.data.errors import DataError, EpochalError, InputError, passes_through
from epochal.data.traces import in_one_line, users_line
from epochal.data.types import Target, seed_64
from epochal.tasks.scaffold.project import OwnModel, Project, project_name, render
from epochal.tasks.user_code.targets import call_target, resolve_target

_PART_NAMES = ("split", "part", "subset", "fold", "mode", "stage", "partition")
_TRAIN_NAMES = ("train", "is_train", "training")
_VALIDATION_WORDS = ("validation", "val", "valid", "dev", "test")
_INPUTS = ("input", "inputs", "image", "images")
_TARGETS = ("target", "label", "labels")
_COUNTED = 2000
"""Items whose labels are read, where the data set has no `targets`."""


@dataclass(frozen=True)
class FoundData:
    """What was seen. train, validation: args of its target; the same ones where it has no parts.

    shape, of_numbers: of an input that is a tensor; classes: None where targets are no labels.
    """

    target: str
    train: Mapping[str, Any]
    validation: Mapping[str, Any]
    num_train: int
    num_validation: int | None
    item: str
    shape: tuple[int, ...] | None
    of_numbers: bool
    classes: int | None
    names: Mapping[str, str] | None
    values: tuple[int, ...] | None

    @property
    def has_parts(self) -> bool:
        """Whether its target gives both parts by itself."""
        return self.num_validation is not None

    def targets(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Of training and validation; those of `parts_file` where there are no parts."""
        if self.has_parts:
            return (
                {"target": self.target, "args": dict(self.train)},
                {"target": self.target, "args": dict(self.validation)},
            )
        return (
            {"target": "parts:part", "args": {"part": "train"}},
            {"target": "parts:part", "args": {"part": "validation"}},
        )

    def parts_file(self) -> str:
        """A module that makes the two parts."""
        module, _, attribute = self.target.partition(":")
        return render("parts.py", module=module, attribute=attribute, args=self.train)


def look_at_data(target: str, args: Mapping[str, Any], folder: Path) -> FoundData:
    """Builds the data set, as training does, and looks at its items. Raises InputError."""
    function = resolve_target(Target(target=target), field="SOURCE", folder=folder)
    train_args, held_out = _parts(function, target, args, folder)
    train = _built(target, train_args, folder)
    validation = None if held_out is None else _built(target, held_out, folder)
    item = _item(train, 0, target)
    given, aim, names = _divided(item)
    shape, of_numbers = _shape(given)
    return FoundData(
        target=target,
        train=train_args,
        validation=train_args if held_out is None else held_out,
        num_train=len(train),
        num_validation=None if validation is None else len(validation),
        item=_described(item),
        shape=shape,
        of_numbers=of_numbers,
        classes=_num_classes(train, aim, names, target),
        names=names,
        values=_values(aim),
    )


def data_project(found: FoundData, *, name: str | None, model: OwnModel | None) -> Project:
    """The config, a model for such items and, where there are no parts, a file that makes them."""
    name = project_name(name, instead=found.target.partition(":")[2].rpartition(".")[2].lower())
    files: dict[str, str] = {f"{name}.yaml": ""}
    train, validation = found.targets()
    if not found.has_parts:
        files["parts.py"] = found.parts_file()
    kind, made = _model(found)
    if model is None:
        files["model.py"] = render(f"{kind}.model.py", **_model_values(kind, found))
    files[f"{name}.yaml"] = render(
        "data.yaml",
        name=name,
        what=f"the data set {found.target}",
        model=made if model is None else model,
        own_model=model is not None,
        train=train,
        validation=validation,
        has_parts=found.has_parts,
        names=found.names,
        classes=found.classes,
        stub=False,
    )
    held = (
        f"{found.num_validation:,} items of their own"
        if found.num_validation is not None
        else "20 % of the items, chosen in parts.py"
    )
    notes = []
    if kind == "data" and model is None:
        notes.append(
            "items are of no form that a model is known for: fill in model.py before the start"
        )
    return Project(
        kind="dataset",
        name=name,
        files=files,
        found=[
            ("items", f"{found.num_train:,} of {found.target}"),
            ("an item", found.item),
            *([] if found.classes is None else [("classes", str(found.classes))]),
            ("held out", held),
        ],
        notes=notes,
    )


def stub_project(*, name: str | None, model: OwnModel | None) -> Project:
    """A config with a data set of made-up items, which trains at once, to be filled in."""
    name = project_name(name, instead="own")
    config = render(
        "data.yaml",
        name=name,
        what="the data set of data.py, made up until you fill it in",
        model=OwnModel("model:MLP", {"features": 8, "classes": 2}) if model is None else model,
        own_model=model is not None,
        train={"target": "data:Data", "args": {"part": "train"}},
        validation={"target": "data:Data", "args": {"part": "validation"}},
        has_parts=True,
        names=None,
        classes=2,
        stub=True,
    )
    files = {f"{name}.yaml": config, "data.py": render("data.py")}
    if model is None:
        files["model.py"] = render("table.model.py", classes=range(2))
    return Project(
        kind="dataset",
        name=name,
        files=files,
        found=[("items", "made up, in data.py: put your own there")],
    )


def _parts(
    function: Callable[..., Any], target: str, args: Mapping[str, Any], folder: Path
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Arguments of the training and of the validation data; None where there are no parts."""
    parameters: Mapping[str, Any] = {}
    with suppress(TypeError, ValueError):  # some built-ins tell none
        parameters = inspect.signature(function).parameters
    for name in _TRAIN_NAMES:
        if name in parameters and name not in args:
            return {**args, name: True}, {**args, name: False}
    for name in _PART_NAMES:
        if name in parameters and name not in args:
            words = [
                word for word in _VALIDATION_WORDS if _builds(target, {**args, name: word}, folder)
            ]
            if words:
                return {**args, name: "train"}, {**args, name: words[0]}
    return dict(args), None


def _builds(target: str, args: Mapping[str, Any], folder: Path) -> bool:
    try:
        return len(_built(target, args, folder)) > 0
    except EpochalError:
        return False


def _built(target: str, args: Mapping[str, Any], folder: Path) -> Any:
    from epochal.engine.randomness import seeded

    with seeded(seed_64("data")):
        made = call_target(Target(target=target, args=dict(args)), field="SOURCE", folder=folder)
    made = adapted(made, name="SOURCE")
    if not hasattr(made, "__len__") or not hasattr(made, "__getitem__"):
        raise InputError(
            f"{target} gives a {type(made).__name__}, which has no len(data) and data[i]; of what "
            f"only iterates `epochal data index {target}` makes shards"
        )
    if not len(made):
        raise DataError(f"{target} with {dict(args)} has no item")
    return made


def _item(data: Any, position: int, target: str) -> Any:
    from epochal.engine.randomness import seeded

    try:
        with seeded(0):
            return data[position]
    except BaseException as error:  # a user's data set may raise anything
        if passes_through(error):
            raise
        raise DataError(
            f"{target}: its item {position} raised {in_one_line(error)}{users_line(error)}"
        ) from error


def _divided(item: Any) -> tuple[Any, Any, Mapping[str, str] | None]:
    """Input, target, and their names where they are not those that are found by themselves."""
    if isinstance(item, tuple | list) and len(item) == 2:  # noqa: PLR2004 - input and target
        return item[0], item[1], None
    if isinstance(item, Mapping):
        given = next((name for name in _INPUTS if name in item), None)
        aim = next((name for name in _TARGETS if name in item), None)
        if given is not None and aim is not None:
            return item[given], item[aim], None
        tensors = [
            name for name, value in item.items()
            if name not in {aim, "sample_id"} and getattr(value, "ndim", 0) > 0
        ]  # fmt: skip
        given = given or (tensors[0] if tensors else None)
        if given is not None and aim is not None:
            return item[given], item[aim], {"input": given, "target": aim}
    return None, None, None


def _shape(given: Any) -> tuple[tuple[int, ...] | None, bool]:
    shape = getattr(given, "shape", None)
    if shape is None:
        return None, False
    return tuple(int(one) for one in shape), "float" in str(given.dtype)


def _values(aim: Any) -> tuple[int, ...] | None:
    """The shape of a target of numbers: () for one number; None for labels or what is no number."""
    if isinstance(aim, float):
        return ()
    if "float" in str(getattr(aim, "dtype", "")):
        return tuple(int(one) for one in aim.shape)
    return None


def _is_label(aim: Any) -> bool:
    whole = isinstance(aim, int) or "int" in str(getattr(aim, "dtype", ""))
    return whole and getattr(aim, "ndim", 0) == 0


def _num_classes(data: Any, aim: Any, names: Mapping[str, str] | None, target: str) -> int | None:
    if not _is_label(aim):
        return None
    classes = getattr(data, "classes", None)
    if classes is not None and hasattr(classes, "__len__"):
        return len(classes)
    labels: Sequence[Any] | None = getattr(data, "targets", None)
    if labels is None or not hasattr(labels, "__len__"):
        count = min(len(data), _COUNTED)
        places = sorted({place * (len(data) - 1) // max(1, count - 1) for place in range(count)})
        labels = [_target_of(_item(data, place, target), names) for place in places]
    return max(2, int(max(int(one) for one in labels)) + 1)


def _target_of(item: Any, names: Mapping[str, str] | None) -> Any:
    return item[names["target"]] if names is not None else _divided(item)[1]


def _described(item: Any) -> str:
    if isinstance(item, Mapping):
        return ", ".join(f"{name}: {_one(value)}" for name, value in item.items())
    if isinstance(item, tuple | list):
        return f"({', '.join(map(_one, item))})"
    return _one(item)


def _one(value: Any) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None:
        return f"{type(value).__name__}" + (f" {value}" if isinstance(value, int | float) else "")
    return f"{str(dtype).removeprefix('torch.')} of shape {tuple(shape)}"


_IMAGE, _VECTOR = 3, 1  # dimensions


def _model(found: FoundData) -> tuple[str, OwnModel]:
    """The template of a model for such items, and how it is called."""
    shape = found.shape
    if shape is not None and found.of_numbers and found.classes is not None:
        if len(shape) == _IMAGE:
            args = {"classes": found.classes, "channels": shape[0], "width": 32}
            return "images", OwnModel("model:SmallResNet", args)
        if len(shape) == _VECTOR:
            args = {"features": shape[0], "classes": found.classes}
            return "table", OwnModel("model:MLP", args)
    if shape is not None and len(shape) == _VECTOR and found.of_numbers and found.values == ():
        return "table", OwnModel("model:Regression", {"features": shape[0]})
    return "data", OwnModel("model:Model", {})


def _model_values(kind: str, found: FoundData) -> dict[str, Any]:
    if kind == "table":
        return {"classes": None if found.classes is None else range(found.classes)}
    return {"item": found.item} if kind == "data" else {}
