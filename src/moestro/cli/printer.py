"""Prints an answer as it comes, whatever characters it is made of."""

from __future__ import annotations

import re
from typing import TextIO

# Everything that could steer a terminal: C0 controls but tab and newline, DEL, and C1 controls.
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_DIM = "\x1b[2m"
_PLAIN = "\x1b[0m"


class Printer:
    """A model's words on a stream. A terminal gets them without control characters; a file or a
    pipe gets them as they are. What the stream's encoding lacks becomes a question mark."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._terminal = out.isatty()
        self._encoding = out.encoding or "utf-8"
        self._at_line_start = True
        self._dim = False

    def put(self, text: str, *, dim: bool = False) -> None:
        if self._terminal:
            text = _STEERING.sub("", text)
        if not text:
            return
        self._set_dim(dim)
        self._out.write(text.encode(self._encoding, "replace").decode(self._encoding))
        self._out.flush()
        self._at_line_start = text.endswith("\n")

    def end_line(self) -> None:
        """Leaves the cursor at the start of a line."""
        self._set_dim(False)
        if not self._at_line_start:
            self._out.write("\n")
        self._out.flush()
        self._at_line_start = True

    def _set_dim(self, dim: bool) -> None:
        if dim != self._dim and self._terminal:
            self._out.write(_DIM if dim else _PLAIN + ("" if self._at_line_start else "\n"))
        self._dim = dim
