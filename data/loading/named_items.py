"""Items under the names that the default step knows: `input` and `target`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.utils.data import TensorDataset

from epochal.data.config.dataset import BatchNames
from epochal.data.errors import DataError
from epochal.data.loading.in_memory import InMemory

_INPUT, _TARGET = "input", "target"


def named(dataset: Any, names: BatchNames, *, field: str) -> Any:
    """A data set whose items have `input` and `target`; all else of it is as it was.

    field: the config's field, for errors. Items raise DataError where a name is not in them.
    """
    if type(dataset) is InMemory:
        return _named_parts(dataset, names, field=field)
    if type(dataset) is TensorDataset:
        tensors = dataset.tensors
        return TensorDataset(
            *(tensors[_place(one, tensors, field=field)] for one in (names.input, names.target))
        )
    return NamedItems(dataset, names, field=field)


def _named_parts(dataset: InMemory, names: BatchNames, *, field: str) -> Any:
    """The set with its parts named, still in memory; a wrapper that tells where one is missing."""
    parts: list[Any] = list(dataset.names or range(len(dataset.tensors)))
    chosen = (names.input, names.target)
    if any(one not in parts for one in chosen):
        return NamedItems(dataset, names, field=field)
    target = parts.index(names.target)
    places = [parts.index(one) for one in chosen]
    if not dataset.names:
        return dataset.with_parts(places, (), target=target)
    rest = [one for one in parts if one not in {*chosen, _INPUT, _TARGET}]
    places = [*map(parts.index, rest), *places]
    return dataset.with_parts(places, (*rest, _INPUT, _TARGET), target=target)


class NamedItems:
    """Passes on what the data set has; its items are dicts of `input`, `target` and their rest."""

    def __init__(self, dataset: Any, names: BatchNames, *, field: str) -> None:
        self._dataset = dataset
        self._names = names
        self._field = field

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return self._named(self._dataset[position])

    def __getattr__(self, name: str) -> Any:
        if name == "__getitems__":
            read = getattr(self._dataset, name)
            return lambda positions: [self._named(item) for item in read(positions)]
        if name.startswith("_"):  # before __init__, as when a worker unpickles it
            raise AttributeError(name)
        value = getattr(self._dataset, name)
        if name == "transform_item":
            return lambda item: self._named(value(item))
        if name == "item_at_size":
            return lambda position, **size: self._named(value(position, **size))
        return self._fingerprint(value) if name == "fingerprint" and callable(value) else value

    def _fingerprint(self, own: Callable[[], Any]) -> Callable[[], Any]:
        def fingerprint() -> Any:
            text = own()
            names = f"input {self._names.input!r}, target {self._names.target!r}"
            return f"{text} as {names}" if isinstance(text, str) and text else text

        return fingerprint

    def _named(self, item: Any) -> dict[str, Any]:
        chosen = (self._names.input, self._names.target)
        if isinstance(item, Mapping):
            for name in chosen:
                if name not in item:
                    raise DataError(
                        f"batch: items of {self._field} have no {name!r}; they have "
                        f"{', '.join(map(str, item))}"
                    )
            rest = {name: part for name, part in item.items() if name not in chosen}
            return {**rest, _INPUT: item[chosen[0]], _TARGET: item[chosen[1]]}
        if isinstance(item, tuple | list):
            places = [_place(name, item, field=self._field) for name in chosen]
            return {_INPUT: item[places[0]], _TARGET: item[places[1]]}
        raise DataError(
            f"batch: items of {self._field} are of type {type(item).__name__}; expected dicts, "
            "whose keys it names, or tuples, whose places it gives from 0 on"
        )


def _place(name: str | int, parts: Any, *, field: str) -> int:
    if isinstance(name, str) or not name < len(parts):
        raise DataError(
            f"batch: found {name!r}, but items of {field} are tuples of {len(parts)}; expected "
            f"places from 0 to {len(parts) - 1}"
        )
    return name
