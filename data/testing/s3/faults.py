"""Which requests to an S3 server fail, and how: counted, again and again, or a share of them."""

from __future__ import annotations

import random
import re
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

UPLOAD_STEPS = ("create", "part", "complete", "abort")
WRITES = frozenset({"put", "copy", "delete", "batch_delete", *UPLOAD_STEPS})
READS = frozenset({"get", "head", "list", "uploads", "parts"})
KINDS = WRITES | READS | {"bucket", "buckets"}
GROUPS: Mapping[str, frozenset[str]] = {"any": KINDS, "write": WRITES, "read": READS}
"""Names that stand for several kinds of requests."""

HOWS = (
    "reset", "slow", "hang", "lost", "late", "doubled", "cut", "flip", "kill", "kill_after",
)  # fmt: skip
_ERROR = re.compile(r"([1-5]\d\d) (\w+)")


@dataclass(frozen=True)
class RequestFault:
    """One way in which requests fail, and which of them.

    how: a status and S3's code for an error, `503 SlowDown`, `500 InternalError` or
    `409 ConditionalRequestConflict`: nothing is done. `reset`: nothing is done, the connection is
    reset. `slow`: done and answered after `seconds`. `hang`: nothing is done, and the connection
    says nothing for `seconds`. `lost`: done, and the connection ends instead of the answer. `late`:
    answered `503 SlowDown`, and done `seconds` later all the same. `doubled`: done twice, the
    second answer is given. `cut`: done, half of the answer comes. `flip`: one bit of what a `get`
    gives is another one, the object stays as it is (of an error or an empty object nothing is
    flipped, and nothing counted as failed). `kill`, `kill_after`: the server's process ends
    before or after doing it, without an answer, as by SIGKILL.
    of: the kind of requests that are counted: `put`, the steps of an upload in parts `create`,
    `part`, `complete`, `abort`; `get`, `head`, `list`, `delete`, `batch_delete`, `copy`, `uploads`
    and `parts` (listings of unfinished uploads and of one's parts), `bucket`, `buckets`; or `any`,
    `write`, `read`.
    key: only requests of objects whose key has this in it.
    at: the first that fails, counted from 1. count: how many fail from there on; without it one,
    or any number where `share` is given. every: after so many requests as many fail again.
    share: from `at` on each fails with this probability, drawn from `seed` and its number.
    Raises ValueError for what does not go together.
    """

    how: str
    of: str = "any"
    key: str = ""
    at: int = 1
    count: int | None = None
    every: int = 0
    share: float = 0.0
    seed: int = 0
    seconds: float = 1.0

    def __post_init__(self) -> None:
        if self.how not in HOWS and not _ERROR.fullmatch(self.how):
            raise ValueError(f"how: {self.how!r} is none of {', '.join(HOWS)}, nor '503 SlowDown'")
        if self.of not in KINDS and self.of not in GROUPS:
            known = ", ".join(sorted(KINDS | set(GROUPS)))
            raise ValueError(f"of: {self.of!r} is none of {known}")
        if self.how == "flip" and self.of not in {"get", "read", "any"}:
            raise ValueError("flip: only a get gives bytes of an object")
        count = 1 if self.count is None else self.count
        if self.at < 1 or self.every < 0 or self.seconds < 0 or count < 1:
            raise ValueError("at and count are from 1, every and seconds from 0")
        if not 0 <= self.share <= 1 or (self.share and self.every):
            raise ValueError("share is from 0 to 1, and has no `every`")

    @property
    def error(self) -> tuple[int, str] | None:
        """(status, code) of the answer, where it is an error of S3."""
        found = _ERROR.fullmatch(self.how)
        return None if found is None else (int(found[1]), found[2])

    def meets(self, kind: str, key: str) -> bool:
        """Whether a request of this kind is one of those that are counted."""
        kinds = GROUPS.get(self.of, frozenset({self.of}))
        if self.how == "flip":
            kinds &= {"get"}
        return kind in kinds and self.key in key

    def fails(self, number: int, failed: int) -> bool:
        """Whether the counted request of this number, from 1, fails, after so many that have."""
        since = number - self.at
        if since < 0:
            return False
        if self.share:
            drawn = random.Random(f"{self.seed}/{number}").random()  # noqa: S311 - no secret
            return drawn < self.share and (self.count is None or failed < self.count)
        return (since % self.every if self.every else since) < (self.count or 1)


class RequestPlan:
    """The faults of a server at work; several threads may ask it."""

    def __init__(self, faults: Iterable[RequestFault] = ()) -> None:
        self._lock = threading.Lock()
        self.replace(faults)

    def replace(self, faults: Iterable[RequestFault]) -> None:
        """From now on these; all counts begin again."""
        with self._lock:
            self._faults = tuple(faults)
            self._seen = [0] * len(self._faults)
            self._failed = [0] * len(self._faults)
            self._requests: Counter[str] = Counter()

    def next(self, kind: str, key: str) -> RequestFault | None:
        """Counts a request; the fault that meets it, the first of several."""
        chosen: int | None = None
        with self._lock:
            self._requests[kind] += 1
            for index, fault in enumerate(self._faults):
                if not fault.meets(kind, key):
                    continue
                self._seen[index] += 1
                if chosen is None and fault.fails(self._seen[index], self._failed[index]):
                    chosen = index
            if chosen is None:
                return None
            self._failed[chosen] += 1
            return self._faults[chosen]

    def missed(self, fault: RequestFault) -> None:
        """A request that the fault met was none that can fail in its way: it has not failed."""
        with self._lock:
            for index, one in enumerate(self._faults):
                if one is fault:
                    self._failed[index] -= 1

    def document(self) -> dict[str, Any]:
        """`requests`: kind → how many; `faults`: each, how many it `counted` and `failed`."""
        with self._lock:
            return {
                "requests": dict(sorted(self._requests.items())),
                "faults": [
                    {**asdict(fault), "counted": seen, "failed": failed}
                    for fault, seen, failed in zip(
                        self._faults, self._seen, self._failed, strict=True
                    )
                ],
            }
