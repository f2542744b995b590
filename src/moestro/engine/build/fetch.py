"""Brings an engine's source from its project's own repository, at one pinned commit or release."""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moestro.engine.build.unpack import unpack
from moestro.engine.llama_cpp.version import EXPECTED_VERSION, PACKAGE
from moestro.engine.registry import Family
from moestro.errors import DownloadError
from moestro.words import shown

_MOST_BYTES = 512 << 20
_QUIET_SECONDS = 60
_GIT_SECONDS = 1800
_STEP_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Pinned:
    """What is built where no source is given. `ref` is a tag, or a commit in full."""

    family: Family
    repository: str
    ref: str

    @property
    def version(self) -> str:
        return self.ref if len(self.ref) < 40 else self.ref[:8]

    @property
    def archive(self) -> str:
        return f"{self.repository}/archive/{self.ref}.tar.gz"


PINNED: dict[Family, Pinned] = {
    # The release that the embedded engine is, so that both compute alike.
    "llama.cpp": Pinned(
        "llama.cpp",
        "https://github.com/ggml-org/llama.cpp",
        f"b{EXPECTED_VERSION.rpartition('.')[2]}",
    ),
    "ik_llama.cpp": Pinned(
        "ik_llama.cpp",
        "https://github.com/ikawrakow/ik_llama.cpp",
        "8337e4cd3861406fc04e0854b1409cd1b027fbc9",  # 2026-08-15
    ),
}
_PACKAGES: dict[Family, str] = {
    "llama.cpp": f"{PACKAGE}=={EXPECTED_VERSION}",
    "ik_llama.cpp": "ik-llama-cpp-python",
}


def fetch(pinned: Pinned, target: Path, say: Callable[[int], None] | None = None) -> str | None:
    """Brings the source into the empty folder `target`; without git, as an archive over HTTPS, in a
    folder inside. Returns the commit, None where only the release is known. `say` is told the
    bytes that arrived.

    Raises:
        DownloadError: no network, or it is not there.
    """
    if shutil.which("git"):
        return _clone(pinned, target)
    _download(pinned, target, say)
    return pinned.ref if len(pinned.ref) == 40 else None


def _clone(pinned: Pinned, target: Path) -> str:
    """One commit without its history; the same command serves tags and commits."""
    patience = ("-c", "http.lowSpeedLimit=1000", "-c", f"http.lowSpeedTime={_QUIET_SECONDS}")
    _git(pinned, target, "init", "--quiet")
    _git(pinned, target, *patience, "fetch", "--quiet", "--depth", "1", pinned.repository,
         pinned.ref)  # fmt: skip
    _git(pinned, target, "-c", "advice.detachedHead=false", "checkout", "--quiet", "FETCH_HEAD")
    commit = _git(pinned, target, "rev-parse", "HEAD").strip()
    # Nothing needs it any more, and builds that find it ask it for more than one commit tells.
    shutil.rmtree(target / ".git")
    return commit


def _git(pinned: Pinned, folder: Path, *words: str) -> str:
    # Nobody is there to be asked for a password, and a user's own settings could rewrite addresses.
    environment = {
        **os.environ,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "LC_ALL": "C",
    }
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=_GIT_SECONDS, check=False,
            env=environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise _not_fetched(pinned, "it took too long") from error
    except OSError as error:
        raise _not_fetched(pinned, f"git: {error.strerror}") from error
    if done.returncode:
        lines = done.stderr[-4096:].decode(errors="replace").strip().splitlines() or ["git failed"]
        raise _not_fetched(pinned, shown(lines[-1].removeprefix("fatal: ").rstrip("."), 200))
    return done.stdout[:4096].decode(errors="replace")


def _download(pinned: Pinned, target: Path, say: Callable[[int], None] | None) -> None:
    archive = target / "source.tar.gz"
    done_bytes = 0
    try:
        with (
            urllib.request.urlopen(pinned.archive, timeout=_QUIET_SECONDS) as reply,
            archive.open("wb") as file,
        ):
            while part := reply.read(_STEP_BYTES):
                done_bytes += len(part)
                if done_bytes > _MOST_BYTES:
                    raise _not_fetched(pinned, "it is larger than any source of an engine")
                file.write(part)
                if say is not None:
                    say(done_bytes)
    except urllib.error.HTTPError as error:
        raise _not_fetched(pinned, f"the server answered {error.code}") from error
    except urllib.error.URLError as error:
        raise _not_fetched(pinned, shown(str(error.reason), 200)) from error
    except OSError as error:
        raise _not_fetched(pinned, error.strerror or "the connection broke") from error
    unpack(archive, target)
    archive.unlink()


def _not_fetched(pinned: Pinned, why: str) -> DownloadError:
    package = _PACKAGES[pinned.family]
    return DownloadError(
        f"The source of {pinned.family} {pinned.version} could not be fetched from "
        f"{pinned.repository}: {why}.",
        hint="Try again, or bring the source yourself and name it with --source: a checkout, or "
        f"what pip download --no-deps --no-binary :all: {package} brings.",
        code="source-not-fetched",
    )
