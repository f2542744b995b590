"""Which engine build this version of moestro was written for."""

from __future__ import annotations

import importlib.metadata

from moestro.errors import EngineMismatch

PACKAGE = "xllamacpp"
EXPECTED_VERSION = "2026.10.11549"
"""The same as in pyproject.toml (a test holds that). Struct layouts in `binding` belong to it."""

_HINT = (
    f"Install the engine that belongs to this version: pip install {PACKAGE}=={EXPECTED_VERSION}"
)


def installed_version() -> str:
    """The version of the installed engine package, without importing it.

    Raises:
        EngineMismatch: it is not installed.
    """
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise EngineMismatch(
            f"The inference engine is missing: {PACKAGE} {EXPECTED_VERSION} is not installed.",
            hint=_HINT,
        ) from error


def check_version(installed: str) -> None:
    """Accepts the expected release, with or without a local build tag (`…+cu128`).

    Raises:
        EngineMismatch: another release; names both.
    """
    if installed.partition("+")[0] != EXPECTED_VERSION:
        raise mismatch(installed, "is another release")


def mismatch(installed: str, what: str) -> EngineMismatch:
    return EngineMismatch(
        f"The installed engine, {PACKAGE} {installed}, {what}; this moestro was made for "
        f"{PACKAGE} {EXPECTED_VERSION}.",
        hint=_HINT,
    )
