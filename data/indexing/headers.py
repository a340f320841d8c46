"""The members of a tar archive, from its headers alone; bodies are skipped, nothing is unpacked.

POSIX ustar and pax, and GNU's long names, as `tar`, Python's tarfile and WebDataset write them
(pax: IEEE Std 1003.1-2017, `pax`, "pax Interchange Format"). Python's tarfile takes four times as
long, and ends in silence at a damaged header: the samples behind it would be missing.

Regular files are given and folders passed over. Links, devices, sparse and compressed files are
refused by name. No member's name is ever used as a path.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn

from epochal.data.errors import DataError

BLOCK = 512
MAX_EXTENDED_BYTES = 1 << 20
"""Of a pax header or a long name: real ones have some hundred."""
MAX_NAME_BYTES = 4096
_SLASH = ord("/")
_REGULAR, _FOLDER, _PAX, _PAX_GLOBAL = b"0\0", b"5", b"x", b"g"
_LONG_NAME, _LONG_LINK = b"L", b"K"
_REFUSED = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a FIFO",
    b"S": "a sparse file",
    b"M": "the rest of a file that began in another archive",
}
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}
_ADLER = 65521
_OCTAL = re.compile(rb"[ \0]*([0-7]*)[ \0]*")
_PAX_RECORD = re.compile(rb"([1-9][0-9]{0,6}) ")

Read = Callable[[int, int], bytes]
"""From a position and a number of bytes to the bytes there; fewer only at the archive's end."""


class Member(NamedTuple):
    """A regular file of an archive. start: of its first header, which may be one for a long name.

    body, size: where its bytes are, from the archive's start.
    """

    name: bytes
    start: int
    body: int
    size: int


class _Header(NamedTuple):
    name: bytes
    kind: bytes
    size: int
    body: int


class Members:
    """Iterates over the regular files of one archive.

    window_bytes: how many are read at once; where bodies are larger, they are passed over.
    comments: what global pax headers said so far. Raises DataError, naming the archive and where
    in it, for what is damaged, cut off or of a kind that holds no samples.
    """

    def __init__(self, read: Read, size: int, *, name: str, window_bytes: int) -> None:
        assert window_bytes >= BLOCK
        self.comments: dict[str, bytes] = {}
        self._read = read
        self._size = size
        self._name = name
        self._window_bytes = window_bytes
        self._window, self._base = b"", 0

    def bytes_at(self, start: int, count: int) -> bytes:
        """`count` bytes, out of what was read last if they are there. Raises DataError."""
        first = start - self._base
        if first < 0 or first + count > len(self._window):
            ahead = max(count, min(self._window_bytes, self._size - start))
            self._window, self._base, first = self._read(start, ahead), start, 0
        found = self._window[first : first + count]
        if len(found) < count:
            self._refuse(start, "the archive ends there: it was cut off")
        return found

    def __iter__(self) -> Iterator[Member]:
        position = first = 0
        local: dict[str, bytes] = {}
        while position < self._size:
            block = self.bytes_at(position, min(BLOCK, self._size - position))
            if not block[0] and block.count(0) == len(block):  # the mark of an archive's end
                if local:
                    self._refuse(position, "a header for a long name with no file behind it")
                return
            header = self._parse(block, position)
            position = header.body + -(-header.size // BLOCK) * BLOCK
            if header.body + header.size > self._size:
                self._refuse(
                    first,
                    f"member {shown(header.name)} is said to have {header.size:,} bytes, which "
                    f"the archive of {self._size:,} does not hold: it was cut off or is damaged",
                )
            if header.kind in {_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK}:
                self._extend(header, local)
                if header.kind == _PAX_GLOBAL:
                    first = position
                continue
            if member := self._member(header, first, local):
                position = member.body + -(-member.size // BLOCK) * BLOCK
                yield member
            local, first = {}, position
        if not position:
            self._refuse(0, "the file is empty")
        self._refuse(position, "the archive has no end mark: it was cut off")

    def _parse(self, block: bytes, position: int) -> _Header:
        if len(block) < BLOCK:
            self._refuse(position, "the archive ends inside a header: it was cut off")
        stated = _OCTAL.fullmatch(block[148:156])
        # The checksum is the sum of all bytes, with spaces in its own place. Adler-32 has that sum
        # in its lower half, modulo 65521, in a tenth of the time that `sum` takes.
        own = (zlib.adler32(block) & 0xFFFF) - 1 - sum(block[148:156]) + 8 * ord(" ")
        if stated is None or not stated[1] or (int(stated[1], 8) - own) % _ADLER:
            form = next((one for mark, one in _COMPRESSED.items() if block.startswith(mark)), None)
            if position == 0 and form is not None:
                self._refuse(
                    0,
                    f"it is compressed ({form}), so that no sample can be read alone; images are "
                    "compressed in themselves: write it as a plain tar",
                )
            self._refuse(position, "that is no header of a tar archive: it is damaged, or no tar")
        name = block[:100].split(b"\0", 1)[0]
        prefix = block[345:500].split(b"\0", 1)[0]
        if prefix and block[257:263] == b"ustar\0":  # GNU's old form has other things there
            name = prefix + b"/" + name
        return _Header(name, block[156:157], self._number(block, position), position + BLOCK)

    def _number(self, block: bytes, position: int) -> int:
        field = block[124:136]
        if field[:1] == b"\x80":  # GNU's form for files of 8 GiB and more
            return int.from_bytes(field[1:], "big")
        if (digits := _OCTAL.fullmatch(field)) is None:
            self._refuse(position, f"the size {field!r} of a member is no octal number")
        return int(digits[1] or b"0", 8)

    def _extend(self, header: _Header, local: dict[str, bytes]) -> None:
        """Notes what an extended header says of the next file, or of all."""
        place = header.body - BLOCK
        if header.size > MAX_EXTENDED_BYTES:
            self._refuse(
                place,
                f"a header for a long name or an attribute has {header.size:,} bytes; expected at "
                f"most {MAX_EXTENDED_BYTES:,}",
            )
        data = self.bytes_at(header.body, header.size)
        if header.kind == _LONG_NAME:
            local["path"] = data.split(b"\0", 1)[0]
        elif header.kind != _LONG_LINK:
            found = self._pax(data, place)
            if header.kind == _PAX and local.keys() & found.keys():
                self._refuse(place, "two headers say the same of one file")
            if header.kind == _PAX_GLOBAL and found.keys() & {"path", "size"}:
                self._refuse(place, "one header gives all files one name or size")
            (self.comments if header.kind == _PAX_GLOBAL else local).update(found)

    def _pax(self, data: bytes, place: int) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        at = 0
        while at < len(data) and data[at : at + 1] != b"\0":
            length = _PAX_RECORD.match(data, at)
            end = at + int(length[1]) if length else at
            if (
                length is None
                or not length.end() < end <= len(data)
                or data[end - 1 : end] != b"\n"
            ):
                self._refuse(place, "a pax header is damaged")
            keyword, equals, value = data[length.end() : end - 1].partition(b"=")
            if not equals:
                self._refuse(place, "a pax header is damaged")
            found[keyword.decode("utf-8", "backslashreplace")] = value
            at = end
        return found

    def _member(self, header: _Header, first: int, local: dict[str, bytes]) -> Member | None:
        plain = not local and header.kind in _REGULAR
        if plain and header.name and header.name[-1] != _SLASH:
            return Member(header.name, first, header.body, header.size)
        name = local.get("path", header.name)
        if any(key.startswith("GNU.sparse") for key in local) or header.kind in _REFUSED:
            kind = _REFUSED.get(header.kind, "a sparse file")
            self._refuse(first, f"member {shown(name)} is {kind}; expected plain files and folders")
        if header.kind == _FOLDER or (name.endswith(b"/") and header.kind in _REGULAR):
            return None
        if header.kind not in _REGULAR:  # POSIX: of an unknown kind, read as a regular file
            self._refuse(first, f"member {shown(name)} is of the unknown kind {header.kind!r}")
        if not name or len(name) > MAX_NAME_BYTES:
            self._refuse(first, f"a member's name has {len(name):,} bytes")
        size = header.size
        if "size" in local:
            if not re.fullmatch(rb"[0-9]{1,18}", local["size"]):
                self._refuse(first, f"member {shown(name)} has the size {local['size']!r:.40}")
            size = int(local["size"])
            if header.body + size > self._size:
                self._refuse(first, f"member {shown(name)} is larger than the archive")
        return Member(name, first, header.body, size)

    def _refuse(self, position: int, why: str) -> NoReturn:
        raise DataError(f"{self._name}: at byte {position:,}: {why}")


def shown(name: bytes) -> str:
    """A member's name for people: in quotes, cut, with nothing a terminal would act on."""
    text = name.decode("utf-8", "backslashreplace")
    return repr(text) if len(text) <= 80 else f"{text[:77]!r}…"  # noqa: PLR2004 - one line
