"""Files planted in a store and taken away again."""

from support.runs.bare_run import BareRun
from support.stores.malformed_bytes import rewritten

from epochal.data.hashing import bytes_sha256


def stage(project, kind, epoch):
    """The record of a stage, and its folder."""
    session = BareRun(project.config).session
    record = session.run.record_of(session.run.stage(kind, epoch))
    return record, f"stages/{record.key}"


def undo(store, project, *stages):
    """Takes records away, so that the stages are computed again and load their parents."""
    folders = [stage(project, kind, epoch)[1] for kind, epoch in stages]
    for folder in folders:
        store.delete(f"{folder}/record.json")


def plant(store, record, name, data):
    """Puts `data` in an artifact's place, under a right digest in a right record."""
    sha256 = bytes_sha256(data)
    old = record.artifacts[name]
    file = f"{sha256}.{old.file.partition('.')[2]}"
    folder = f"stages/{record.key}"
    store.put_new(f"{folder}/{file}", data)

    def change(body):
        body["artifacts"][name] = {"file": file, "sha256": sha256, "size": len(data)}

    rewritten(store, f"{folder}/record.json", change)
    return f"{folder}/{file}"
