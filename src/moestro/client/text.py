"""Text and JSON that every client can decode."""

from __future__ import annotations

import json
import re
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")


def valid_text(text: str) -> str:
    """The text, with U+FFFD for each character that UTF-8 can't hold.

    JSON may carry halves of characters (`"\\ud800"`), and Python keeps bytes of a file name that
    are not UTF-8 in the same form.
    """
    return _SURROGATE.sub("\ufffd", text)


def json_bytes(data: Any) -> bytes:
    """JSON in UTF-8, whatever text is in it."""
    return valid_text(json.dumps(data, ensure_ascii=False, separators=(",", ":"))).encode()
