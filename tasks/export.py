"""A checkpoint's weights as a file that plain torch loads."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from epochal.data.errors import InputError, NotFound
from epochal.tasks.locate import FoundRun


def export_weights(found: FoundRun, *, epoch: int, out: Path, artifact: str = "model") -> str:
    """Copies the weights of `epoch` to `out`, whole or not at all; gives their sha256.

    artifact: `model`, or `ema` for the average. Raises NotFound if that epoch has none, Damaged if
    its bytes are not what they were, InputError if `out` cannot be written.
    """
    record = found.record("train", epoch)
    if record is None:
        raise NotFound(
            f"{found.plan.reference} has no checkpoint of epoch {epoch}; it has "
            f"{found.config.epochs} epochs planned: see `epochal show {found.plan.run}`"
        )
    if artifact not in record.artifacts:
        raise NotFound(
            f"{found.plan.reference}, epoch {epoch}: no average of the weights was kept; give "
            "`ema` in the config, and train"
        )
    temporary = out.with_name(f"{out.name}.{os.getpid()}.part")
    try:
        with found.stage_store.fetch_artifact(record, artifact) as path:
            shutil.copyfile(path, temporary)
        temporary.replace(out)
    except FileNotFoundError as error:
        if not out.parent.is_dir():
            raise InputError(
                f"--out {out}: there is no folder {out.parent}; make it first"
            ) from None
        raise NotFound(f"{found.plan.reference}, epoch {epoch}: {error}") from error
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return record.artifacts[artifact].sha256
