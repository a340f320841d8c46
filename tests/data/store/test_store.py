"""What `preflight` clears away."""

import time
import uuid

from epochal.data.store.open import open_store
from epochal.data.store.store import PROBE_S


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
