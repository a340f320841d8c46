"""A terminal's screen: what a person sees of the bytes that a program has written."""

import re

_PIECES = re.compile(
    r"\x1b\[(\??[0-9;]*)([A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|(.)", re.DOTALL
)


class Screen:
    """Lines of a terminal of `width` columns that never scrolls. Takes what rich writes.

    Wraps as terminals do: a character beyond the last column begins the next line.
    """

    def __init__(self, width):
        self.width = width
        self.lines = [""]
        self.row = self.column = 0

    def write(self, text):
        """What the program writes next."""
        for given, code, character in _PIECES.findall(text):
            if character:
                self._put(character)
            elif code == "A":
                self.row = max(0, self.row - int(given or 1))
            elif code == "K":
                assert given == "2"
                self.lines[self.row] = ""
            elif code and code not in "mhl":
                raise AssertionError(f"what is CSI {given}{code}?")

    def narrow(self, width):
        """The window is made narrower: lines that are too long are broken anew."""
        broken, row = [], 0
        for number, line in enumerate(one.rstrip() for one in self.lines):
            if number == self.row:
                row = len(broken) + max(0, len(line) - 1) // width
            broken += [line[at : at + width] for at in range(0, max(len(line), 1), width)]
        self.lines, self.row, self.width = broken, row, width
        self.column = len(broken[row])

    @property
    def shown(self):
        """The lines that are not empty."""
        return [line.rstrip() for line in self.lines if line.strip()]

    def _put(self, character):
        if character == "\r":
            self.column = 0
        elif character == "\n":  # the terminal's driver makes two of it
            self._down()
            self.column = 0
        else:
            if self.column >= self.width:
                self._down()
                self.column = 0
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
            self.column += 1

    def _down(self):
        self.row += 1
        if self.row == len(self.lines):
            self.lines.append("")
