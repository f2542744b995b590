"""The page for browsers: three files of the package, and what they are allowed to do."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources

from starlette.responses import Response

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}

PAGE_HEADERS: Mapping[str, str] = {
    # Nothing but its own files, and nobody may frame it: it may hold a key.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "vary": "accept",
}


def wants_page(accept: str) -> bool:
    """Browsers say that they take HTML; curl and programs take anything."""
    return "text/html" in accept


def asset(name: str, headers: Mapping[str, str] | None = None) -> Response:
    """One of the page's files. A browser asks again each time: another version may serve."""
    kind = _TYPES[name.rpartition(".")[2]]
    return Response(
        _content(name),
        media_type=f"{kind}; charset=utf-8",
        headers={
            "cache-control": "no-cache",
            "x-content-type-options": "nosniff",
            **(headers or {}),
        },
    )


@cache
def _content(name: str) -> bytes:
    return resources.files("moestro.gateway").joinpath("dashboard", name).read_bytes()
