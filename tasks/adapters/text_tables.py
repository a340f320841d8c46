"""Texts and labels of a table as a tokenizer of transformers reads them, and batches of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from epochal.data.datasets.split import Split, read_split, split_rows
from epochal.data.errors import DataError, TargetError, passes_through
from epochal.data.files.columns import ColumnReader
from epochal.data.hashing import digest
from epochal.data.traces import in_one_line

# N rows, K of them in the part

_COLLATORS = {
    "padding": "DataCollatorWithPadding",
    "causal_lm": "DataCollatorForLanguageModeling",
    "masked_lm": "DataCollatorForLanguageModeling",
    "token_classification": "DataCollatorForTokenClassification",
    "seq2seq": "DataCollatorForSeq2Seq",
}


def hugging_face_collate(tokenizer: str, kind: str = "padding", **more: Any) -> Any:
    """A data collator of transformers, for `loader.collate`.

    tokenizer: a name or a folder. kind: padding, causal_lm, masked_lm, token_classification or
    seq2seq. more: what the collator takes. What masking draws follows from the run's seed.
    """
    import transformers

    if kind not in _COLLATORS:
        raise TargetError(
            f"loader.collate.args.kind: found {kind!r}; expected one of {', '.join(_COLLATORS)}"
        )
    if kind in {"causal_lm", "masked_lm"}:
        more = {"mlm": kind == "masked_lm", **more}
    collator = getattr(transformers, _COLLATORS[kind])(tokenizer_of(tokenizer), **more)
    return _Collate(collator)


class _Collate:
    def __init__(self, collator: Any) -> None:
        self._collator = collator

    def __call__(self, items: list[Any]) -> Any:
        return dict(self._collator(items))


def hugging_face_texts(
    path: str,
    tokenizer: str,
    text: str = "text",
    label: str | None = "label",
    pair: str | None = None,
    max_length: int = 128,
    split: Split | Mapping[str, Any] | None = None,
) -> Texts:
    """Rows of a table as dicts of `input_ids`, `attention_mask` and `labels`, of their own lengths.

    path: as of `epochal.data.datasets:table`. tokenizer: a name or a folder. text, pair: columns of
    texts, the second for models that compare two. label: a column of texts or whole numbers, which
    become classes by their sorted order, or of other numbers; none: no labels. max_length: in
    tokens; what is longer is cut.

    Raises DataError, naming the column, TargetError for the tokenizer.
    """
    reader = ColumnReader(path, {}, None)
    rows = reader.everything()
    columns = {}
    for name in (text, *([pair] if pair else []), *([label] if label else [])):
        if name not in rows.column_names:
            raise DataError(
                f"{path} has no column {name!r}; it has {', '.join(rows.column_names[:30])}"
            )
        columns[name] = rows.column(name).to_pylist()
        missing = [row for row, value in enumerate(columns[name]) if value is None]
        if missing:
            raise DataError(f"{reader.first} row {missing[0]}, column {name!r}: missing")
    classes, labels_N = (None, None) if label is None else _labels(columns[label])
    part = read_split(split, name="hugging_face_texts")
    rows_K = np.arange(rows.num_rows, dtype=np.int64)
    if part is not None:
        of_classes_N = labels_N if classes is not None else None
        rows_K = split_rows(part, rows.num_rows, labels_N=of_classes_N, name="hugging_face_texts")
    made = tokenizer_of(tokenizer)
    texts = [str(columns[text][row]) for row in rows_K.tolist()]
    pairs = None if pair is None else [str(columns[pair][row]) for row in rows_K.tolist()]
    encoded = made(texts, pairs, truncation=True, max_length=max_length)
    named = digest("texts", [path, text, label, pair, max_length, split and dict(split)])
    return Texts(
        dict(encoded),
        None if labels_N is None else labels_N[rows_K],
        classes=classes,
        said=f"{named}-{reader.files.content_digest()}-{_identity(made)}",
    )


class Texts:
    """What `hugging_face_texts` returns."""

    thread_safe = unread = True

    def __init__(
        self,
        encoded: Mapping[str, list[list[int]]],
        labels_K: Any,
        *,
        classes: list[str] | None,
        said: str,
    ) -> None:
        self._encoded = encoded
        self._labels_K = labels_K
        self._said = said
        self.lengths = np.array([len(one) for one in encoded["input_ids"]], dtype=np.int64)
        if classes is not None:
            self.classes = classes
            self.targets = labels_K

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """Lists of whole numbers, which a collator pads, and `labels`."""
        item: dict[str, Any] = {name: rows[position] for name, rows in self._encoded.items()}
        if self._labels_K is not None:
            item["labels"] = self._labels_K[position].item()
        return item

    def fingerprint(self) -> str:
        """Names the rows, the tokenizer and what is made of them."""
        return self._said


def _labels(values: list[Any]) -> tuple[list[str] | None, Any]:
    if any(isinstance(value, float) and not value.is_integer() for value in values):
        return None, np.array(values, dtype=np.float32)
    known = sorted(set(values))
    codes = {value: code for code, value in enumerate(known)}
    return [str(one) for one in known], np.array([codes[one] for one in values], dtype=np.int64)


def tokenizer_of(name: str) -> Any:
    """The tokenizer of that name or folder. Raises TargetError."""
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(name)
    except BaseException as error:  # names and files may be wrong in many ways
        if passes_through(error):
            raise
        raise TargetError(
            f"tokenizer: {name!r}: {in_one_line(error)}; expected a name of the hub, or a folder "
            "with tokenizer.json"
        ) from error


def _identity(tokenizer: Any) -> str:
    """Changes with what the tokenizer makes of a text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    told = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
    return digest("tokenizer", [type(tokenizer).__name__, told])
