"""Numbers of the endpoint that other rooms may need. Imports nothing."""

from __future__ import annotations

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8642
DEFAULT_URL = f"http://{DEFAULT_HOST}:{DEFAULT_PORT}"

MAX_BODY_BYTES = 32 * 1024 * 1024
"""Largest request body. A million tokens of text are about 4 MiB; images travel as base64."""

MAX_BODIES_BYTES = 16 * MAX_BODY_BYTES
"""Bodies of all requests that are read, wait or are being answered. What is read of them as JSON
takes as much again, and more where they hold many values."""

MAX_ANSWER_BYTES = 256 * 1024 * 1024
"""Largest answer that is no stream: a million tokens, each with a short list of others."""

MAX_JSON_DEPTH = 128
"""Deepest nesting of a request: engines walk JSON recursively, so a hostile depth stops here."""

MOST_CONTAINERS = 400_000
MOST_VALUES = 2_000_000
"""Of a body: it is read on the loop's thread, and a value takes many times its text's memory. A
text of a million tokens has a tenth of it."""

BODY_IDLE_SECONDS = 30.0
"""Longest pause of a client in the middle of its own request body."""

BODY_SECONDS = 300.0
"""Longest time that a whole body may take: one that drips would hold its connection for ever."""

DISCARD_SECONDS = 10.0
"""How long the body of a request that is refused unread may take to arrive."""

RETRY_AFTER_SECONDS = 2
"""What a client is told to wait when nobody can know how long: the engine is not ready, or the
answers that its key waits for are not."""

BUSY_RETRY_AFTER_SECONDS = 5
"""The same where too many wait already."""

DRAIN_SECONDS = 10.0
"""How long answers in progress may take to finish after SIGTERM."""
