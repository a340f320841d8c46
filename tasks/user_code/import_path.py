"""The config's folder as a place to import from, which shadows nothing for others.

The folder stands last on `sys.path`, so a `profile.py` or `utils.py` in it is nothing to the
standard library and to installed packages that import a module of such a name. For the user's own
files it goes first, but for names of the standard library, which are one module for all.
"""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import FrameType, ModuleType

from epochal.tasks.user_code.loaded_modules import is_users_file
from epochal.tasks.user_code.source_digests import is_known_to_all

_folders: list[str] = []
"""The folders of configs whose targets were imported in this process, the newest first."""


def use_folder(folder: Path) -> None:
    """From now on modules are found in `folder`, too, before those of other configs' folders."""
    name = str(folder)
    others = [place for place in _folders if place != name]
    if name not in sys.path or name in _folders:  # else PYTHONPATH or a script has put it there
        kept = [place for place in sys.path if place not in _folders]
        _folders[:] = [name, *others]
        sys.path[:] = [*kept, *_folders]
    _finder.folder = name
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def path_without_folders() -> list[str]:
    """`sys.path` as it was before: for a process that uses a folder of its own."""
    return [place for place in sys.path if place not in _folders]


class _OwnFirst(importlib.abc.MetaPathFinder):
    """Finds the modules of a folder for those files that are the user's."""

    folder: str | None = None

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """The user's module of that name; None leaves it to the finders after this one."""
        if self.folder is None or path is not None or is_known_to_all(fullname):
            return None
        spec = PathFinder.find_spec(fullname, [self.folder], target)
        if spec is None or spec.loader is None or not _asked_by_user():
            return None  # a folder without modules of its own, such as one of images, comes last
        return spec


_finder = _OwnFirst()


def _asked_by_user() -> bool:
    """Whether the import that is under way stands in a file of the user's, or is a target's."""
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - an import does not say who asks for it
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.partition(".")[0] != "importlib":
            ours = name.startswith("epochal.tasks.user_code")
            return ours or is_users_file(Path(frame.f_code.co_filename))
        frame = frame.f_back
    return False
