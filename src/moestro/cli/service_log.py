"""Where `moestro serve` writes what happens: a line each on stderr, and in the service's file."""

from __future__ import annotations

import json
import queue
import sys
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from moestro.client.text import valid_text
from moestro.engine.log import BoundedFile
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
        self._lines: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
        self._put = self._written = 0
        self._dropped = 0
        self._writer = threading.Thread(target=self._write, name="log", daemon=True)
        self._writer.start()

    def say(self, event: str, text: str, **more: Any) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        if self._dropped:
            text = f"{text} (before it {self._dropped} lines were left out: nobody read them)"
        line = f"{now} {event}: {text}"
        if self._as_json:
            line = json.dumps({"at": now, "event": event, "text": text, **more}, ensure_ascii=False)
        lines = line, f"{now} moestro {event}: {text}"
        size = sum(map(len, lines))
        if self._put - self._written + size > MOST_WAITING:
            self._dropped += 1
            return
        self._dropped = 0
        self._put += size
        self._lines.put(lines)

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
        self._lines.put(None)
        self._writer.join(CLOSE_SECONDS)

    def _write(self) -> None:
        while (lines := self._lines.get()) is not None:
            shown, kept = (valid_text(line) for line in lines)
            if self.file is not None:
                self.file.write(plain(kept).encode() + b"\n")
            try:
                print(shown if self._as_json else plain(shown), file=sys.stderr, flush=True)
            except OSError:  # its reader is gone; the file goes on
                continue
            finally:
                self._written += sum(map(len, lines))
