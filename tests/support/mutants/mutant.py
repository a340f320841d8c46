"""A small change of the source that its tests must find."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
PARTS = ("data", "engine", "tasks", "flows")


@dataclass(frozen=True)
class Mutant:
    """One fault: in `file`, `old` becomes `new`.

    first: the test files that are likeliest to find it, in the folder of the file's tests, which
    runs whole after them. A file of a floor itself, such as data/hashing.py, has these alone.
    """

    name: str
    file: str
    old: str
    new: str
    first: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where the tests of the file lie: the folder of its name, or else the one above."""
        folder = Path("tests") / Path(self.file).parent
        return folder if (ROOT / folder).is_dir() else folder.parent

    @property
    def selections(self) -> tuple[tuple[str, ...], ...]:
        """The arguments of pytest, one try after the other."""
        first = tuple(str(self.folder / name) for name in self.first)
        return (first,) if self.folder.name in PARTS else (first, (str(self.folder),))

    def problem(self, root: Path) -> str | None:
        """Why it cannot be planted in the source below `root`, or None."""
        try:
            count = (root / self.file).read_text().count(self.old)
        except FileNotFoundError:
            return f"{self.file} is not there"
        if count != 1:
            return f"its text occurs {count} times in {self.file}, expected once"
        missing = [name for name in self.first if not (root / self.folder / name).is_file()]
        return f"{self.folder / missing[0]} is not there" if missing else None


def of(file: str, first: str, *faults: tuple[str, str, str]) -> list[Mutant]:
    """The mutants of one file: (name, old text, new text)."""
    return [Mutant(name, file, old, new, tuple(first.split())) for name, old, new in faults]
