"""Where `moestro serve` writes what happens: a line each on stderr, and in the service's file."""

from __future__ import annotations

import json
import logging
import sys
import textwrap
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from moestro.client.text import valid_text
from moestro.engine.log import BoundedFile, WriterThread
from moestro.words import plain

if TYPE_CHECKING:
    from moestro.gateway.service import Note

MOST_WAITING = 4 << 20
"""Letters that wait for whoever reads stderr; more are dropped, and the lines counted."""

CLOSE_SECONDS = 2.0


class ServiceLog:
    """Whoever says something never waits: a thread writes. `file` gets the lines for people,
    between the engines' own."""

    def __init__(self, *, as_json: bool) -> None:
        self.file: BoundedFile | None = None
        self._as_json = as_json
        self._dropped = 0
        self._writer = WriterThread(self._write, MOST_WAITING)

    def say(self, event: str, text: str, **more: Any) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        if self._dropped:
            text = f"{text} (before it {self._dropped} lines were left out: nobody read them)"
        line = f"{now} {event}: {text}"
        if self._as_json:
            line = json.dumps({"at": now, "event": event, "text": text, **more}, ensure_ascii=False)
        lines = line, f"{now} moestro {event}: {text}"
        accepted = self._writer.put(lines, sum(map(len, lines)))
        self._dropped = 0 if accepted else self._dropped + 1

    def warn(self, text: str) -> None:
        self.say("warning", text)

    def note(self, note: Note) -> None:
        if note.state is None:
            self.say("engines", note.text)
        else:
            said = f"engine {note.engine} {note.state}"
            self.say(said, note.text, engine=note.engine, state=str(note.state))

    def request(self, text: str, figures: dict[str, Any]) -> None:
        self.say("request", text, **figures)

    def close(self) -> None:
        """Waits a moment until all is written."""
        self._writer.close(CLOSE_SECONDS)

    def _write(self, lines: list[tuple[str, str]]) -> None:
        for line in lines:
            shown, kept = map(valid_text, line)
            if self.file is not None:
                self.file.write(plain(kept).encode() + b"\n")
            with suppress(OSError):  # its reader is gone; the file goes on
                print(shown if self._as_json else plain(shown), file=sys.stderr, flush=True)


class FaultHandler(logging.Handler):
    """What the libraries have to say, and faults of ours that they caught, in the same log."""

    def __init__(self, log: ServiceLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage().strip()
        except (TypeError, ValueError):
            text = record.msg
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            trace = "".join(traceback.format_exception(error)).strip()
            text += "\n" + textwrap.indent(trace, "    ")
        self._log.say("fault", f"{record.name}: {text}")
