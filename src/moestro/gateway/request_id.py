"""A name for every answer, so that it can be found again in a log."""

from __future__ import annotations

import random

HEADER = b"x-request-id"
IN_SCOPE = "moestro.request_id"


def new_request_id() -> bytes:
    return b"req_%024x" % random.getrandbits(96)
