"""The tools that a build needs, looked for before anything is fetched or written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moestro.engine.registry import Family
from moestro.errors import EngineError
from moestro.hardware.tools import run_tool
from moestro.words import shown

_CMAKE_LEAST = (3, 14)
# What each asks of its compiler.
_STANDARD: dict[Family, str] = {"llama.cpp": "c++17", "ik_llama.cpp": "c++20"}
_TRIAL = b"#include <filesystem>\n#include <thread>\n#include <vector>\nint main() { return 0; }\n"
_COMPILE_SECONDS = 60.0

# Package manager → how it installs a compiler, and CMake.
_MANAGERS = {
    "apt-get": ("sudo apt-get install build-essential", "sudo apt-get install cmake ninja-build"),
    "dnf": ("sudo dnf install gcc-c++ make", "sudo dnf install cmake ninja-build"),
    "zypper": ("sudo zypper install gcc-c++ make", "sudo zypper install cmake ninja"),
    "pacman": ("sudo pacman -S base-devel", "sudo pacman -S cmake ninja"),
    "apk": ("sudo apk add build-base linux-headers", "sudo apk add cmake samurai"),
    "xcode-select": ("xcode-select --install", "brew install cmake ninja"),
}


@dataclass(frozen=True, slots=True)
class Toolchain:
    """`generator` is CMake's word for `builder`, which is ninja or make. `cxx_name` is what the
    compiler calls itself. `nvcc` is None where no CUDA code is to be compiled."""

    cmake: Path
    generator: str
    builder: Path
    cc: Path
    cxx: Path
    cxx_name: str
    nvcc: Path | None = None

    def accepts(self, flag: str) -> bool:
        """Whether the compiler knows `flag`."""
        return _compiles(self.cxx, b"int main() { return 0; }\n", flag) is None


def find_toolchain(family: Family, *, cuda: bool = False) -> Toolchain:
    """Looks for everything and tries the compiler.

    Raises:
        EngineError: something is missing; the hint names what to install.
    """
    cmake = _find("cmake")
    if cmake is None:
        raise _missing("CMake is missing.", _tools_hint())
    said = run_tool(str(cmake), "--version") or ""
    version = re.search(r"(\d+)\.(\d+)", said)
    if version is None:
        raise _missing(f"{cmake} does not run.", _tools_hint())
    if (int(version[1]), int(version[2])) < _CMAKE_LEAST:
        least = ".".join(map(str, _CMAKE_LEAST))
        raise _missing(f"CMake {version[0]} is too old: {least} is needed.", _tools_hint())
    generator, builder = "Ninja", _find("ninja", "ninja-build", "samu")
    if builder is None:
        generator, builder = "Unix Makefiles", _find("make", "gmake")
    if builder is None:
        raise _missing("Neither ninja nor make is here.", _tools_hint())
    cc = _compiler("CC", "cc", "gcc", "clang")
    cxx = _compiler("CXX", "c++", "g++", "clang++")
    if cc is None or cxx is None:
        raise _missing("A compiler for C and C++ is missing.", _compiler_hint())
    standard = _STANDARD[family]
    trouble = _compiles(cxx, _TRIAL, f"-std={standard}")
    if trouble is not None:
        raise _missing(
            f"{cxx} cannot compile {standard.upper()}, which {family} is written in: {trouble}.",
            _compiler_hint(),
        )
    name = (run_tool(str(cxx), "--version") or "").splitlines()
    nvcc = find_nvcc() if cuda else None
    if cuda and nvcc is None:
        raise _missing(
            "NVIDIA's compiler nvcc is missing.",
            "Install the CUDA toolkit, or build for the processor alone: --no-cuda.",
        )
    return Toolchain(cmake, generator, builder, cc, cxx, shown(name[0] if name else cxx.name, 120),
                     nvcc)  # fmt: skip


def find_nvcc(environment: Mapping[str, str] = os.environ) -> Path | None:
    """NVIDIA's compiler: on the PATH, or where its installers put it."""
    homes = (environment.get("CUDA_HOME"), environment.get("CUDA_PATH"), "/usr/local/cuda")
    folders = [str(Path(home) / "bin") for home in homes if home]
    found = shutil.which("nvcc") or shutil.which("nvcc", path=os.pathsep.join(folders))
    return Path(found) if found else None


def _find(*names: str) -> Path | None:
    """On the PATH, or beside our own Python: `pip install cmake ninja` puts them there."""
    beside = str(Path(sys.executable).parent)
    for name in names:
        found = shutil.which(name) or shutil.which(name, path=beside)
        if found:
            return Path(found)
    return None


def _compiler(variable: str, *names: str) -> Path | None:
    """The user's choice first. Words after the program (`ccache g++`) are CMake's business."""
    chosen = os.environ.get(variable, "").split()
    return _find(*(chosen[:1] or names))


def _compiles(cxx: Path, text: bytes, *flags: str) -> str | None:
    """None where `text` compiles with `flags`, or the compiler's first complaint."""
    try:
        done = subprocess.run(
            [str(cxx), *flags, "-Werror", "-fsyntax-only", "-x", "c++", "-"],
            input=text, capture_output=True, timeout=_COMPILE_SECONDS, check=False,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "it does not answer"
    except OSError as error:
        return error.strerror or type(error).__name__
    if done.returncode == 0:
        return None
    lines = done.stderr[:8192].decode(errors="replace").splitlines()
    said = next((line for line in lines if "error" in line), lines[0] if lines else "it failed")
    return shown(said.strip().rstrip("."), 160)


def _missing(sentence: str, hint: str) -> EngineError:
    return EngineError(sentence, hint=hint, code="build-tools-missing")


def _manager() -> tuple[str, str] | None:
    return next((words for name, words in _MANAGERS.items() if shutil.which(name)), None)


def _compiler_hint() -> str:
    words = _manager()
    return f"Install one: {words[0]}" if words else "Install GCC or Clang with its C++ library."


def _tools_hint() -> str:
    words = _manager()
    system = f"{words[1]}, or " if words else ""
    return f"Install it: {system}pip install cmake ninja"
