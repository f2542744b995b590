"""What is this binary? A `llama-server` asked for its version, its options and its devices.

It is somebody's program: it gets no secrets, little time, and what it says is bounded.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from moestro.engine.architectures import found_in
from moestro.engine.registry import (
    EXPERT_CACHE,
    LOAD_MODE,
    MTP,
    NGRAM,
    REPACK,
    SYNTHETIC_ACCEPTANCE,
    UNIFIED,
    EngineInfo,
    Origin,
)
from moestro.errors import EngineError
from moestro.planning.settings import Family
from moestro.words import shown

TIMEOUT_SECONDS = 20.0
"""A build for GPUs opens their driver before it answers."""

_MOST_BYTES = 1 << 20
_PASSED_ON = re.compile(
    r"PATH|HOME|LANG|LC_\w+|TMPDIR|(DY)?LD_LIBRARY_PATH|(CUDA|HIP|ROCR|GPU|ZE|ONEAPI|GGML|VK)_\w+"
)
_VERSION = re.compile(r"^version: (.{1,200})$", re.MULTILINE)
_OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z0-9-]*")
_DEVICE = re.compile(r"^\s+([A-Za-z]+\d+): \S", re.MULTILINE)
_SERVERS_OPTIONS = frozenset(("--model", "--ctx-size", "--parallel", "--port", "--api-key-file"))
_IKS_OPTION = "--run-time-repack"


@dataclass(frozen=True, slots=True)
class Probe:
    """What a server says of itself. `options` are the words of its `--help` that look like one."""

    family: Family
    version: str
    options: frozenset[str]
    features: frozenset[str]
    devices: tuple[str, ...]


def probe(program: Path, *, origin: Origin = "given") -> EngineInfo:
    """The llama-server at `program`.

    Raises:
        EngineError: there is none, or it is another program.
    """
    path = Path(os.path.abspath(program))
    found = ask(path)
    return EngineInfo(
        id=str(path),
        family=found.family,
        version=found.version,
        origin=origin,
        program=path,
        features=found.features,
        architectures=_architectures(*_key(path)) or None,
        devices=found.devices,
    )


def ask(program: Path) -> Probe:
    """What the program itself says, without a look into it.

    Raises:
        EngineError: there is none, or it is another program.
    """
    return _asked(*_key(program))


def _key(program: Path) -> tuple[Path, int, int]:
    """What is known of a file is known for as long as these stay the same."""
    try:
        status = program.stat()
    except OSError as error:
        raise EngineError(
            f"There is no llama-server at {program}: {error.strerror}.",
            hint="moestro engines list shows the engines that are here.",
            code="no-such-engine",
        ) from error
    return program, status.st_mtime_ns, status.st_size


@lru_cache(maxsize=16)
def _asked(program: Path, _changed: int, _size: int) -> Probe:
    if not program.is_file() or not os.access(program, os.X_OK):
        raise _no_server(program, "it is not a program")
    _refuse_others(program)
    text = _run(program, "--help")
    options = frozenset(_OPTION.findall(text))
    if not options >= _SERVERS_OPTIONS:
        raise _no_server(program, "it does not have its options")
    family: Family = "ik_llama.cpp" if _IKS_OPTION in options else "llama.cpp"
    listed = _run(program, "--list-devices") if "--list-devices" in options else ""
    return Probe(
        family,
        _version(_run(program, "--version")),
        options,
        _features(family, options, text),
        tuple(dict.fromkeys(_DEVICE.findall(listed))),
    )


def _refuse_others(program: Path) -> None:
    """A plan may name a program, and plans come from elsewhere: what another user of this machine
    could have put there is not run."""
    status = program.stat()
    if status.st_uid not in (0, os.getuid()) or status.st_mode & stat.S_IWOTH:
        raise EngineError(
            f"{program} belongs to another user, or everyone may change it.",
            hint="Copy it to a place of your own, or take that right away: chmod o-w.",
            code="engine-not-trusted",
        )


@lru_cache(maxsize=16)
def _architectures(program: Path, _changed: int, _size: int) -> frozenset[str]:
    """Of the binary and of the libraries that lie where its builders put them."""
    real = program.resolve()
    libraries = [
        path
        for folder in (real.parent, real.parent.parent / "lib")
        for path in sorted(folder.glob("libllama.*"))
    ]
    return found_in((real, *libraries))


def _run(program: Path, argument: str) -> str:
    """What it prints on either stream; empty where it ended badly.

    Raises:
        EngineError: it cannot be started, or does not end.
    """
    environment = {name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)}
    try:
        with tempfile.TemporaryFile() as said:
            done = subprocess.run(
                [program, argument],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env=environment,
                timeout=TIMEOUT_SECONDS,
                check=False,
                start_new_session=True,
            )
            said.seek(0)
            text = said.read(_MOST_BYTES).decode(errors="replace")
    except subprocess.TimeoutExpired as error:
        raise _no_server(program, f"it did not answer within {TIMEOUT_SECONDS:g} s") from error
    except OSError as error:
        raise _no_server(program, error.strerror or "it does not start") from error
    if done.returncode < 0:
        raise _no_server(program, "it crashes; it may be built for another processor")
    return text


def _version(text: str) -> str:
    found = _VERSION.search(text)
    return shown(found[1].strip(), 80) if found else "unknown"


def _features(family: Family, options: Collection[str], text: str) -> frozenset[str]:
    if family == "ik_llama.cpp":
        has = {
            MTP: "--multi-token-prediction" in options,
            NGRAM: "--spec-type" in options and "ngram-simple" in text,
            REPACK: True,
            LOAD_MODE: True,
        }
    else:
        has = {
            MTP: "draft-mtp" in text,
            NGRAM: "ngram-simple" in text,
            UNIFIED: "--kv-unified" in options,
            REPACK: "--no-repack" in options,
            LOAD_MODE: bool({"--load-mode", "--no-mmap"} & set(options)),
            EXPERT_CACHE: "--moe-cache-mib" in options,
            SYNTHETIC_ACCEPTANCE: "--spec-synth-rates" in options,
        }
    return frozenset(name for name, there in has.items() if there)


def _no_server(program: Path, why: str) -> EngineError:
    return EngineError(
        f"{program} is not a llama-server: {why}.",
        hint="Give the path of llama.cpp's or ik_llama.cpp's llama-server.",
        code="not-an-engine",
    )
