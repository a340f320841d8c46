"""What `preflight` takes for an error, and what it clears away."""

import time
import uuid

from epochal.data.store.open import open_store
from epochal.data.store.remote import MemoryBackend
from epochal.data.store.retry import tried
from epochal.data.store.store import PROBE_S, Store


class LosesAnAnswer(MemoryBackend):
    """As Google's or Azure's: the answer to its first write gets lost, and it tries again."""

    lost = False

    def put_new(self, path, source):
        tried(lambda: self._put(path, source))

    def _put(self, path, source):
        super().put_new(path, source)
        if not self.lost:
            self.lost = True
            raise TimeoutError


def test_probes_that_a_crash_has_left_go_once_they_are_old():
    store = open_store(f"memory://{uuid.uuid4().hex}/store")
    now = int(time.time())
    old, fresh, other = (
        f"tmp/preflight-{now - PROBE_S - 60}-{'a' * 16}",
        f"tmp/preflight-{now}-{'b' * 16}",
        "tmp/preflight-of-somebody",
    )
    for path in (old, fresh, other):
        store.put_new(path, b"1")
    store.preflight()
    assert set(store.listing("tmp")) == {fresh, other}


def test_a_probe_whose_answer_got_lost_is_no_error():
    url = f"memory://{uuid.uuid4().hex}/store"
    backend = LosesAnAnswer(url)
    Store(url, backend).preflight()
    assert backend.lost
    assert open_store(url).listing("tmp") == {}
