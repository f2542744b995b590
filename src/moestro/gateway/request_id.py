"""A name for every answer, so that it can be found again in a log."""

from __future__ import annotations

import secrets

HEADER = b"x-request-id"


def new_request_id() -> bytes:
    return f"req_{secrets.token_hex(12)}".encode()
