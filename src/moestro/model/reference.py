"""What MODEL means on a command line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from moestro.errors import UsageError


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A GGUF file: whole, or any part of a split one."""

    path: Path


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder: in Hugging Face layout, or one that holds GGUF files."""

    path: Path


@dataclass(frozen=True, slots=True)
class HubRef:
    """`hf:owner/repo[:quant]`. `quant` is matched against file names, whatever its case."""

    repository: str
    quant: str | None = None

    def __str__(self) -> str:
        return f"hf:{self.repository}" + (f":{self.quant}" if self.quant else "")


@dataclass(frozen=True, slots=True)
class Url:
    """The http(s) address of a GGUF file."""

    address: str


@dataclass(frozen=True, slots=True)
class Demo:
    """The model that moestro ships."""


Reference = LocalFile | Folder | HubRef | Url | Demo

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_.][\w.-]{0,95}")
_QUANT = re.compile(r"[\w.-]{1,128}")


def parse_reference(text: str) -> Reference:
    """Tells apart a path, a folder, `hf:…`, an address and `demo`. Only looks at the file system
    to see whether a path is a folder.

    Raises:
        UsageError: an empty or malformed reference.
    """
    if not text.strip() or "\0" in text:
        raise UsageError("The model's name is empty.", hint="Give a path, hf:owner/repo or demo.")
    if text == "demo":
        return Demo()
    if text.startswith("hf:"):
        return _hub(text)
    if text.lower().startswith(("http://", "https://")):
        return _url(text)
    if re.match(r"[a-z][a-z0-9+.]+://", text):
        raise UsageError(
            f"“{text}” is an address that moestro cannot read.",
            hint="Addresses start with http:// or https://; hub models are hf:owner/repo.",
        )
    path = Path(text).expanduser()
    return Folder(path) if path.is_dir() else LocalFile(path)


def looks_like_repository(text: str) -> bool:
    """Whether a path that does not exist may have been meant as a hub repository."""
    return _REPOSITORY.fullmatch(text) is not None and not text.endswith(".gguf")


def _hub(text: str) -> HubRef:
    repository, _, quant = text.removeprefix("hf:").partition(":")
    good = _REPOSITORY.fullmatch(repository) is not None and ".." not in repository
    if not good or (quant and not _QUANT.fullmatch(quant)) or text.endswith(":"):
        raise UsageError(
            f"“{text}” is not a hub model.",
            hint="Write it like hf:owner/repo or hf:owner/repo:Q4_K_M.",
        )
    return HubRef(repository, quant or None)


def _url(text: str) -> Url:
    try:
        parts = urlsplit(text)
        good = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if good and "@" in parts.netloc:
        raise UsageError(
            "Addresses with a user's name or password in them are not supported.",
            hint="Download the file and give its path.",
        )
    if not good or any(ord(character) <= 32 for character in text):
        raise UsageError(
            f"“{text}” is not an address.", hint="Write it like https://host/model.gguf."
        )
    return Url(text)
