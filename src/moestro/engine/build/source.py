"""The source of an engine: which of the two it is, and of which version, told from its files.

`--source` takes a checkout, an unpacked source distribution of the Python packages `xllamacpp` or
`ik-llama-cpp-python` (or any other that holds one of the two where they do), or its archive. What a
user gives is copied, never built in: ik_llama.cpp writes into its own source while it is compiled.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from moestro.engine.registry import (
    EXPERT_CACHE,
    LOAD_MODE,
    MTP,
    NGRAM,
    REPACK,
    SYNTHETIC_ACCEPTANCE,
    UNIFIED,
    Family,
)
from moestro.errors import EngineError
from moestro.hardware.tools import read_text
from moestro.words import shown

# Where distributions keep the engine that they wrap.
_INSIDE = ("", "thirdparty/llama.cpp", "vendor/llama.cpp", "vendor/ik_llama.cpp")
_ARCHITECTURES = Path("src/llama-arch.cpp")
# Not needed to compile a server, and more than half of the bytes.
_LEFT_OUT = frozenset({".git", ".github", ".devops", "benches", "ci", "docker", "docs",
                       "github-data", "gguf-py", "media", "models", "tests"})  # fmt: skip
_NO_SCRIPT = "# common/build-info.cpp is here already.\n"
_MOST_FILES = 50_000
_MOST_BYTES = 2 << 30

# Feature → the file that reads the option behind it, and how the option is spelled there.
_FEATURES: dict[Family, dict[str, tuple[str, str]]] = {
    "llama.cpp": {
        MTP: ("common/speculative.cpp", '"draft-mtp"'),
        NGRAM: ("common/speculative.cpp", '"ngram-'),
        UNIFIED: ("common/arg.cpp", '"--kv-unified"'),
        REPACK: ("common/arg.cpp", '"--no-repack"'),
        LOAD_MODE: ("common/arg.cpp", '"--load-mode"'),
        EXPERT_CACHE: ("common/arg.cpp", '"--moe-cache-mib"'),
        SYNTHETIC_ACCEPTANCE: ("common/arg.cpp", '"--spec-synth-rates"'),
    },
    "ik_llama.cpp": {
        MTP: ("common/common.cpp", '"--multi-token-prediction"'),
        NGRAM: ("common/speculative.cpp", '"ngram'),
        REPACK: ("common/common.cpp", '"--run-time-repack"'),
        LOAD_MODE: ("common/common.cpp", '"--no-mmap"'),
    },
}


@dataclass(frozen=True, slots=True)
class Source:
    """One engine's source in `folder`. `version` is `b11549`, `0.1.5` or a short commit, with
    `-dirty` where a checkout was changed; without any of these it begins with `src-` and a hash.
    `hash` is the SHA-256 of the files that are compiled. `origin` says where it came from."""

    family: Family
    folder: Path
    version: str
    commit: str | None
    hash: str
    origin: str

    @property
    def architectures(self) -> frozenset[str]:
        """Names as in a GGUF's `general.architecture`."""
        return parse_architectures(read_text(self.folder / _ARCHITECTURES, most_bytes=1 << 22))

    @property
    def features(self) -> frozenset[str]:
        """What its server can be told to do, of `registry.FEATURES`."""
        found = set()
        for feature, (path, spelled) in _FEATURES[self.family].items():
            if spelled in read_text(self.folder / path, most_bytes=1 << 23):
                found.add(feature)
        return frozenset(found)


def identify(folder: Path, origin: str | None = None) -> Source:
    """Which engine's source is in `folder`, or in the distribution that `folder` holds.

    Raises:
        EngineError: neither of the two, one that is too old, or more than any source has.
    """
    outer = _only_folder(folder)
    found = next(
        ((outer / inside, family) for inside in _INSIDE if (family := _family(outer / inside))),
        None,
    )
    if found is None:
        raise EngineError(
            f"{folder} holds neither llama.cpp's source nor ik_llama.cpp's.",
            hint="Give a checkout of one of them, or the unpacked source distribution of the "
            "Python package xllamacpp or ik-llama-cpp-python.",
            code="not-an-engine-source",
        )
    inner, family = found
    tree = tree_hash(inner)
    version, commit = _version(outer, inner, family)
    return Source(family, inner, version or f"src-{tree[:8]}", commit, tree,
                  origin or str(folder.resolve()))  # fmt: skip


def copy_source(source: Source, target: Path) -> None:
    """Copies what a compiler needs of `source` to `target`, which must not exist yet.

    Raises:
        OSError: it cannot be read, or the disk is full.
    """
    for relative in _files(source.folder):
        place = target / relative
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source.folder / relative, place)
        place.chmod(0o755 if os.access(place, os.X_OK) else 0o644)


def tree_hash(folder: Path) -> str:
    """SHA-256 over the names and bytes of the files that `copy_source` would copy.

    Raises:
        EngineError: more files or bytes than any source of an engine has, or one is unreadable.
    """
    digest = hashlib.sha256()
    total_bytes = 0
    for count, relative in enumerate(_files(folder)):
        try:
            content = (folder / relative).read_bytes()
        except OSError as error:
            raise EngineError(
                f"{folder / relative} cannot be read: {error.strerror}.",
                code="not-an-engine-source",
            ) from error
        total_bytes += len(content)
        if count >= _MOST_FILES or total_bytes > _MOST_BYTES:
            raise EngineError(
                f"{folder} holds more than the source of an engine.", code="not-an-engine-source"
            )
        digest.update(f"{relative}\0{len(content)}\0".encode(errors="surrogateescape"))
        digest.update(content)
    return digest.hexdigest()


def write_build_info(folder: Path, version: str, commit: str | None) -> None:
    """ik_llama.cpp's `common/build-info.cpp`, and in place of the script that would make it from
    git, and which distributions leave out, one that does nothing. Both are needed: ninja runs a
    command that it has not seen yet whatever the ages of files are.

    Raises:
        EngineError: the template is not as expected.
        OSError: it cannot be written.
    """
    template = folder / "common" / "build-info.cpp.in"
    values = {
        "BUILD_NUMBER": "0",
        "BUILD_COMMIT": commit or version,
        "BUILD_COMPILER": "a compiler on this machine",
        "BUILD_TARGET": "this machine",
    }
    text = re.sub(r"@(\w+)@", lambda m: values.get(m[1], m[0]), read_text(template))
    if not text or "@BUILD" in text:
        raise EngineError(
            f"{template} is not the template that this moestro knows.",
            hint="Use the pinned version: leave out --source.",
            code="not-an-engine-source",
        )
    script = folder / "common" / "cmake" / "build-info-gen-cpp.cmake"
    script.parent.mkdir(exist_ok=True)
    for path, content in ((script, _NO_SCRIPT), (folder / "common" / "build-info.cpp", text)):
        # Written again only where it differs: its age decides what is compiled anew.
        if read_text(path) != content:
            path.write_text(content, encoding="utf-8")


def parse_architectures(text: str) -> frozenset[str]:
    """Out of `LLM_ARCH_NAMES` in `llama-arch.cpp`: `{ LLM_ARCH_LLAMA, "llama" },`."""
    table = re.search(r"LLM_ARCH_NAMES\s*=\s*\{(.*?)\n\};", text, re.DOTALL)
    names = re.findall(r"\{\s*LLM_ARCH_\w+\s*,\s*\"([\w.-]+)\"\s*\}", table[1] if table else "")
    return frozenset(names) - {"clip", "unknown"}


def _family(folder: Path) -> Family | None:
    """What `folder` itself holds. Both call their CMake project llama.cpp."""
    if not (folder / "CMakeLists.txt").is_file() or not (folder / _ARCHITECTURES).is_file():
        return None
    if (folder / "ggml/src/iqk").is_dir() and (folder / "examples/server").is_dir():
        return "ik_llama.cpp"
    if (folder / "ggml/src/ggml-cpu").is_dir() and (folder / "tools/server").is_dir():
        return "llama.cpp"
    return None


def _only_folder(folder: Path) -> Path:
    """An archive mostly holds one folder; then that one."""
    try:
        inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise EngineError(
            f"{folder} cannot be read: {error.strerror}.", code="not-an-engine-source"
        ) from error
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def _version(outer: Path, inner: Path, family: Family) -> tuple[str | None, str | None]:
    """Version and commit, None where nothing tells."""
    if (inner / ".git").exists():
        return _git_version(inner, family)
    if outer != inner:
        said = read_text(outer / "PKG-INFO", most_bytes=1 << 14)
        name = re.search(r"^Name: *(\S+)", said, re.MULTILINE)
        version = re.search(r"^Version: *([\w.+-]{1,40})\s*$", said, re.MULTILINE)
        if name and version:
            if name[1] == "xllamacpp":
                return f"b{version[1].partition('+')[0].rpartition('.')[2]}", None
            if family == "ik_llama.cpp":
                return version[1], None
            return shown(f"{name[1]}-{version[1]}", 40), None
    # An archive of a repository at a commit, or of a release, names its folder after it.
    release = re.fullmatch(r"llama\.cpp-(b\d+)", inner.name)
    if release:
        return release[1], None
    commit = re.fullmatch(r"(?:ik_)?llama\.cpp-([0-9a-f]{40})", inner.name)
    return (commit[1][:8], commit[1]) if commit else (None, None)


def _git_version(folder: Path, family: Family) -> tuple[str | None, str | None]:
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None or not re.fullmatch(r"[0-9a-f]{40,64}", commit):
        return None, None
    version = commit[:8]
    if family == "llama.cpp":
        tag = _git(folder, "describe", "--tags", "--exact-match", "--match", "b[0-9]*", "HEAD")
        whole = _git(folder, "rev-parse", "--is-shallow-repository") == "false"
        count = _git(folder, "rev-list", "--count", "HEAD") if whole and not tag else None
        version = tag or (f"b{count}" if count else version)
    dirty = _git(folder, "status", "--porcelain", "--untracked-files=no") != ""
    return f"{version}{'-dirty' if dirty else ''}", commit


def _git(folder: Path, *words: str) -> str | None:
    """What git says of a checkout, without what the checkout's own settings would run."""
    settings = ("core.fsmonitor=false", "core.hooksPath=/dev/null", "safe.directory=*")
    safe = [word for setting in settings for word in ("-c", setting)]
    try:
        done = subprocess.run(
            ["git", *safe, "-C", str(folder), *words],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout[:4096].decode(errors="replace").strip() if done.returncode == 0 else None


def _files(folder: Path) -> Iterator[Path]:
    """Regular files, relative to `folder`, in one order everywhere. Links are not followed: they
    could lead anywhere."""
    for root, folders, names in os.walk(folder):
        here = Path(root)
        top = here == folder
        folders[:] = sorted(
            name
            for name in folders
            if not (here / name).is_symlink()
            and not (top and (name in _LEFT_OUT or name.startswith("build")))
        )
        for name in sorted(names):
            path = here / name
            if path.is_file() and not path.is_symlink():
                yield path.relative_to(folder)
