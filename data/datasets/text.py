"""Text as a data set: bytes or tokens in fixed windows, mapped into memory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from epochal.data.datasets.split import Split, read_split, split_rows
from epochal.data.errors import DataError, passes_through
from epochal.data.files.local_cache import cache_folder
from epochal.data.files.named import Files, kind_of, list_files
from epochal.data.hashing import digest
from epochal.data.traces import in_one_line

# D documents, G of them or of all joined, N windows, K of them in the part, B of a batch, T tokens

TEXTS = (".txt", ".text", ".md")
TOKENS = (".bin", ".npy")
TOKEN_TYPES = ("uint8", "uint16", "uint32", "int32", "int64")
PIECE_CHARS = 1 << 20
"""Of a text that is encoded at once, up to the end of a line: an encoding takes 100 times that."""
MAX_MAPS = 512  # Linux gives a process 65,530 mappings
_UINT16 = 1 << 16

Ints = npt.NDArray[np.int64]


def text(
    path: str,
    window: int | None,
    stride: int | None = None,
    tokenizer: Any = None,
    split: Split | Mapping[str, Any] | None = None,
    *,
    join: bool = False,
    end: int | None = None,
    dtype: str = "uint16",
) -> Windows:
    """Windows of a text: `(input, target)`, int64 of shape (T,); the target is one token ahead.

    path: a file, a folder or a glob, of this machine or any fsspec URL, each file a document:
    `.txt`, `.text` or `.md`, of which tokens are the bytes (0 to 255) or those of `tokenizer`; or
    token files, `.bin` of `dtype` (as nanoGPT writes them) and `.npy`. window: T; none: documents
    as they are, each an item, for `packed`. stride: tokens from one window to the next; none: T.
    join: windows go on from a document to the next, in the order of the names; else what is left
    of a document after its last window is left out. tokenizer: has `encode(text)`, as those of
    `tokenizers` and `transformers`, and a `to_str()` or `fingerprint()` that names it. It is used
    once: its tokens are kept in the cache, `EPOCHAL_CACHE` (~/.cache/epochal), under the content
    and the tokenizer. end: a token that it puts behind each document.
    split: windows that overlap one of the other part are in none; by `column: file` or `folder`
    (the first below `path`) it is made of documents.

    Raises DataError, naming the file, for what is missing, no text or too short.
    """
    _check_sizes(window, stride)
    if dtype not in TOKEN_TYPES:
        raise DataError(f"text: dtype: found {dtype!r}; expected one of {', '.join(TOKEN_TYPES)}")
    files = list_files(path, suffixes=(*TEXTS, *TOKENS), name="text")
    of_tokens = [Path(file.name).suffix.lower() in TOKENS for file in files]
    if any(of_tokens) and not all(of_tokens):
        raise DataError(
            f"text: {files[of_tokens.index(True)].name} holds tokens and "
            f"{files[of_tokens.index(False)].name} is a text; expected one of the two"
        )
    if end is not None and (tokenizer is None or type(end) is not int or not 0 <= end < 1 << 32):
        raise DataError(
            f"text: end: found {end!r}; expected a token, and a `tokenizer`, behind whose "
            "documents it is put"
        )
    identity = None if tokenizer is None else _identity(tokenizer)
    if of_tokens[0]:
        if tokenizer is not None:
            raise DataError(f"text: {files[0].name} holds tokens already; leave out `tokenizer`")
        stored = _mapped_files(files, dtype)
    elif tokenizer is None:
        stored = _mapped_files(files, "uint8")
    else:
        stored = _encoded(files, tokenizer, identity, end)
    part = read_split(split, name="text")
    says = [window, stride, join, identity, end, part and part.model_dump()]
    if of_tokens[0]:
        says.append(dtype)
    return Windows(files, stored, window, stride or window, part, join=join, says=says)


def _check_sizes(window: int | None, stride: int | None) -> None:
    for name, value in (("window", window), ("stride", stride)):
        if value is not None and (type(value) is not int or value < 1):
            raise DataError(f"text: {name}: found {value!r}; expected a number of tokens from 1 on")
    if window is None and stride is not None:
        raise DataError("text: stride: without `window` each document is one item; leave it out")


@dataclass(frozen=True, eq=False)
class _Stored:
    """Documents one after another, in arrays that are files.

    arrays: path, type, and bytes before the tokens. array_D: of each document; start_D: its first
    token in it; length_D: its tokens. All int64 of shape (D,).
    """

    arrays: Sequence[tuple[Path, str, int]]
    array_D: Ints
    start_D: Ints
    length_D: Ints

    def of(self, rows_D: Ints) -> _Stored:
        """Of some of the documents."""
        return _Stored(
            self.arrays, self.array_D[rows_D], self.start_D[rows_D], self.length_D[rows_D]
        )


class Windows:
    """Windows, or whole documents, of token arrays; made by `text`."""

    thread_safe = True
    unread = True  # a mapping has no position that processes would share

    def __init__(
        self,
        files: Files,
        stored: _Stored,
        window: int | None,
        stride: int | None,
        part: Split | None,
        *,
        join: bool,
        says: Sequence[Any],
    ) -> None:
        self._files = files
        self._says = says
        self._unit = "byte" if stored.arrays and stored.arrays[0][1] == "uint8" else "token"
        rows_D = np.arange(len(files), dtype=np.int64)
        if part is not None and part.column is not None:
            rows_D = split_rows(
                part, len(files), labels_N=None, name="text", column=lambda name: _of(files, name)
            )
            part = None
        self._documents = rows_D
        self._stored = stored.of(rows_D)
        ends_D = np.cumsum(self._stored.length_D)
        self._begin_D: Ints = ends_D - self._stored.length_D
        self._window = window
        # Windows lie within documents, or in all of them as one.
        begin_G, length_G = self._begin_D, self._stored.length_D
        if join:
            begin_G, length_G = np.zeros(1, dtype=np.int64), ends_D[-1:]
        if window is None:
            rows_G = np.flatnonzero(length_G > 1)
            self._start_K, self.lengths = begin_G[rows_G], length_G[rows_G] - 1
            if part is not None:
                rows_K = split_rows(part, len(rows_G), labels_N=None, name="text")
                self._start_K, self.lengths = self._start_K[rows_K], self.lengths[rows_K]
        else:
            assert stride is not None
            self._start_K = _starts(begin_G, length_G, window, stride)
            if part is not None and len(self._start_K):
                self._start_K = _part_of(part, self._start_K, begin_G, window, stride)
            self.lengths = np.full(len(self._start_K), window, dtype=np.int64)
        if not len(self._start_K):
            longest = int(length_G.max(initial=0))
            raise DataError(
                f"text: no {'window of ' + str(window + 1) if window else 'document of 2'} tokens: "
                f"the longest {'text' if join else 'document'} of {files[0].name}"
                f"{' and others' if len(files) > 1 else ''} has {longest}; expected one at least "
                "(a window and the token after it); take a smaller window, or join: true"
            )
        self._array = lru_cache(maxsize=MAX_MAPS)(self._map)

    def __len__(self) -> int:
        return len(self._start_K)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The window's tokens, and the tokens one ahead."""
        start, count = int(self._start_K[position]), int(self.lengths[position])
        tokens = torch.from_numpy(self._tokens(start, np.empty(count + 1, dtype=np.int64)))
        return tokens[:-1], tokens[1:]

    def __getitems__(self, positions: Sequence[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """As items, in order."""
        if self._window is None:
            return [self[position] for position in positions]
        tokens_BT = np.empty((len(positions), self._window + 1), dtype=np.int64)
        for row, position in enumerate(positions):
            self._tokens(int(self._start_K[position]), tokens_BT[row])
        return [(one[:-1], one[1:]) for one in torch.from_numpy(tokens_BT)]

    def fingerprint(self) -> str:
        """Names the content."""
        return digest("text", [self._says, self._files.content_digest()])

    def stamp(self) -> str:
        """Changes whenever a file does."""
        return self._files.stamp()

    def path_of(self, position: int) -> str:
        """The file, and the first token in it."""
        start = int(self._start_K[position])
        row = int(np.searchsorted(self._begin_D, start, side="right")) - 1
        name = self._files[int(self._documents[row])].name
        return f"{name} from {self._unit} {start - int(self._begin_D[row])}"

    def _tokens(self, start: int, out_T: Ints) -> Ints:
        """Fills `out_T` with the tokens from `start` on, over the borders of documents."""
        row = int(np.searchsorted(self._begin_D, start, side="right")) - 1
        filled = 0
        while filled < len(out_T):
            within = start + filled - int(self._begin_D[row])
            count = min(int(self._stored.length_D[row]) - within, len(out_T) - filled)
            if count > 0:
                first = int(self._stored.start_D[row]) + within
                tokens = self._array(int(self._stored.array_D[row]))
                out_T[filled : filled + count] = tokens[first : first + count]
                filled += count
            row += 1
        return out_T

    def _map(self, number: int) -> npt.NDArray[Any]:
        path, dtype, offset = self._stored.arrays[number]
        try:
            return np.asarray(np.memmap(path, dtype=dtype, mode="r", offset=offset))
        except (OSError, ValueError) as error:
            raise DataError(
                f"text: {path.name} cannot be read: {error}; expected the file as it was at the "
                "start"
            ) from error


def _starts(begin_G: Ints, length_G: Ints, window: int, stride: int) -> Ints:
    """The first token of each window, which has one more after its last: int64 of shape (N,)."""
    count_G = np.maximum((length_G - 1 - window) // stride + 1, 0)
    first_G = np.cumsum(count_G) - count_G
    within_N = np.arange(int(count_G.sum()), dtype=np.int64) - np.repeat(first_G, count_G)
    start_N: Ints = np.repeat(begin_G, count_G) + within_N * stride
    return start_N


def _part_of(split: Split, start_N: Ints, begin_G: Ints, window: int, stride: int) -> Ints:
    """The windows of the part. Overlapping ones go by blocks of `window` tokens, drawn whole."""
    if stride >= window:
        return start_N[split_rows(split, len(start_N), labels_N=None, name="text")]
    group_N = np.searchsorted(begin_G, start_N, side="right") - 1
    within_N = start_N - begin_G[group_N]
    first_N, last_N = within_N // window, (within_N + window - 1) // window
    num_G = np.zeros(len(begin_G), dtype=np.int64)
    np.maximum.at(num_G, group_N, last_N + 1)
    offset_G = np.cumsum(num_G) - num_G
    total = int(num_G.sum())
    chosen = np.zeros(total, dtype=bool)
    chosen[split_rows(split, total, labels_N=None, name="text")] = True
    inside_N = chosen[offset_G[group_N] + first_N] & chosen[offset_G[group_N] + last_N]
    return start_N[inside_N]


def _of(files: Files, column: str) -> npt.NDArray[Any]:
    if column == "file":
        values = [file.name for file in files]
    elif column == "folder":
        values = [file.name.partition("/")[0] if "/" in file.name else "" for file in files]
    else:
        raise DataError(f"text: split.column: found {column!r}; expected file or folder")
    return np.array(values, dtype=object)


def _mapped_files(files: Files, dtype: str) -> _Stored:
    arrays, lengths = [], []
    for number, file in enumerate(files):
        path = files.local_path(number)
        suffix = path.suffix.lower()
        if kind_of(file.name) != Path(file.name).suffix.lower():
            raise DataError(f"text: {file.name} is packed; unpack it, so that it can be mapped")
        if suffix == ".npy":
            array = _npy(file.name, path)
            lengths.append(len(array))
            arrays.append((path, array.dtype.str, array.offset))
            continue
        size = np.dtype(dtype).itemsize
        if file.size % size:
            raise DataError(
                f"text: {file.name} has {file.size} bytes, no multiple of the {size} of a {dtype}; "
                f"state `dtype`, one of {', '.join(TOKEN_TYPES)}"
            )
        arrays.append((path, dtype if size == 1 else f"<{np.dtype(dtype).str[1:]}", 0))
        lengths.append(file.size // size)
    count = len(lengths)
    return _Stored(
        arrays,
        array_D=np.arange(count, dtype=np.int64),
        start_D=np.zeros(count, dtype=np.int64),
        length_D=np.array(lengths, dtype=np.int64),
    )


def _npy(name: str, path: Path) -> np.memmap[Any, Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # of a damaged header NumPy raises errors of many kinds
        raise DataError(f"text: {name} cannot be read: {in_one_line(error)}") from error
    if not isinstance(array, np.memmap) or array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(
            f"text: {name} is of {array.dtype} and shape {array.shape}; expected whole numbers of "
            "one dimension"
        )
    return array


def _identity(tokenizer: Any) -> str:
    """A text that names the tokenizer with all that its tokens depend on."""
    for owner, method in (
        (tokenizer, "fingerprint"),
        (tokenizer, "to_str"),
        (getattr(tokenizer, "backend_tokenizer", None), "to_str"),
    ):
        if callable(function := getattr(owner, method, None)):
            return digest("tokenizer", str(function()))
    raise DataError(
        f"text: tokenizer: a {type(tokenizer).__module__}.{type(tokenizer).__qualname__} has "
        "neither `to_str()`, as those of the package tokenizers, nor `fingerprint()`; its tokens "
        "are kept for the next start: give it a method `fingerprint()` that returns a text, which "
        "changes whenever its tokens do"
    )


def _encode(tokenizer: Any, piece: str, name: str) -> npt.NDArray[np.uint32]:
    if not callable(encode := getattr(tokenizer, "encode", None)):
        raise DataError(
            f"text: tokenizer: a {type(tokenizer).__qualname__} has no `encode(text)`; expected "
            "one that gives the list of its tokens"
        )
    plain = callable(getattr(tokenizer, "to_str", None)) or hasattr(tokenizer, "backend_tokenizer")
    try:
        # Those that put marks at begin and end would put them around each piece.
        found = encode(piece, add_special_tokens=False) if plain else encode(piece)
        tokens = np.asarray(getattr(found, "ids", found))
    except BaseException as error:  # a user's tokenizer may raise anything
        if passes_through(error):
            raise
        raise DataError(f"text: tokenizer: encoding {name} raised {in_one_line(error)}") from error
    if not len(tokens):
        return np.empty(0, dtype=np.uint32)
    if (
        tokens.ndim != 1
        or tokens.dtype.kind not in "iu"
        or not 0 <= tokens.min() <= tokens.max() < 1 << 32
    ):
        raise DataError(
            f"text: tokenizer: for {name} it gave {tokens.dtype} of shape {tokens.shape}; expected "
            "a list of whole numbers from 0 to 2^32 - 1"
        )
    return tokens.astype(np.uint32)


def _encoded(files: Files, tokenizer: Any, identity: str | None, end: int | None) -> _Stored:
    """The documents' tokens, out of the cache, or encoded now and put there."""
    # Of a text of which only slices are hashed its time of change counts too.
    content = [files.content_digest(), files.stamp() if files.is_sampled else None]
    folder = cache_folder() / "tokens" / digest("tokens", [content, identity, end])
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix="."))
        try:
            _write_tokens(files, tokenizer, end, made)
            try:
                made.rename(folder)
            except OSError:
                if not folder.is_dir():  # another process has put the same there meanwhile
                    raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    ends_D = np.load(folder / "ends.npy", allow_pickle=False)
    tokens = folder / "tokens.npy"
    if not len(ends_D) or not ends_D[-1]:
        raise DataError(f"text: {files[0].name}: there are no tokens; expected a text")
    array = _npy("tokens.npy", tokens)
    count = len(ends_D)
    starts_D = np.append(0, ends_D[:-1]).astype(np.int64)
    return _Stored(
        [(tokens, array.dtype.str, array.offset)],
        array_D=np.zeros(count, dtype=np.int64),
        start_D=starts_D,
        length_D=ends_D - starts_D,
    )


def _write_tokens(files: Files, tokenizer: Any, end: int | None, folder: Path) -> None:
    """Writes all tokens to `tokens.npy`, and where each document ends to `ends.npy`."""
    ends, largest, raw = [], 0, folder / "raw"
    with raw.open("wb") as out:
        count = 0
        for number, file in enumerate(files):
            for piece in _pieces(files, number):
                tokens = _encode(tokenizer, piece, file.name)
                largest = max(largest, int(tokens.max(initial=0)))
                count += len(tokens)
                out.write(tokens.astype("<u4").tobytes())
            if end is not None:
                largest, count = max(largest, end), count + 1
                out.write(np.array([end], dtype="<u4").tobytes())
            ends.append(count)
    kind = "<u2" if largest < _UINT16 else "<u4"
    if count:
        written = np.lib.format.open_memmap(
            folder / "tokens.npy", mode="w+", dtype=kind, shape=(count,)
        )
        read = np.memmap(raw, dtype="<u4", mode="r")
        for start in range(0, count, 1 << 22):
            written[start : start + (1 << 22)] = read[start : start + (1 << 22)]
        written.flush()
        del written, read
    raw.unlink()
    np.save(folder / "ends.npy", np.array(ends, dtype=np.int64))


def _pieces(files: Files, number: int) -> Iterator[str]:
    """The text of a file in pieces of whole lines."""
    with files.opened(number) as stream:
        try:
            with TextIOWrapper(stream, encoding="utf-8", newline="") as lines:
                while piece := lines.readlines(PIECE_CHARS):
                    yield "".join(piece)
        except UnicodeDecodeError as error:
            raise DataError(
                f"text: {files[number].name} is no text in UTF-8: {error.reason} near byte "
                f"{error.start} of a piece; convert the file"
            ) from error
