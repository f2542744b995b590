"""Where a model's file is, as its plan says: a path of this or another machine, or an address."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath
from urllib.parse import unquote

from moestro.planning.plan_file import legible

_UNNAMED = "model.gguf"


def is_address(location: str) -> bool:
    """Whether the file is still on the web."""
    return location.startswith(("http://", "https://"))


def is_safetensors(location: str) -> bool:
    """Whether it belongs to a Hugging Face folder, which llama.cpp does not read."""
    return file_name(location).lower().endswith(".safetensors")


def file_name(location: str) -> str:
    """The last part of a path of any system, or of an address without what follows its path."""
    if is_address(location):
        name = PurePosixPath(unquote(re.split("[?#]", location)[0])).name
    elif not location.startswith("/") and PureWindowsPath(location).is_absolute():
        name = PureWindowsPath(location).name
    else:
        name = PurePosixPath(location).name
    return name if legible(name) and name not in ("", ".", "..") else _UNNAMED


def operand(path: str) -> str:
    """`path` as a word of a command that is not an option, even if it begins like one."""
    return f"./{path}" if path.startswith("-") else path
