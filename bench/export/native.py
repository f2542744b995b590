"""Builds llama-server of the very release that the embedded engine is, with devices over RPC.

    python -m bench.export.native                       # about 20 minutes on two cores, once
    python -m bench.export.native --source DIR          # with the sdist unpacked already

An RPC device counts as a GPU for the server: two of them, here on the processor, show what it makes
of settings for GPUs on a machine that has none.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from pathlib import Path

from bench.verify import native
from bench.verify.cache import cache_folder
from moestro.engine.llama_cpp.version import EXPECTED_VERSION

SERVER, RPC_SERVER = TOOLS = ("llama-server", "ggml-rpc-server")
CMAKE_OPTIONS = (
    *(option for option in native.CMAKE_OPTIONS if "LLAMA_BUILD_SERVER" not in option),
    "-DLLAMA_BUILD_SERVER=ON",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DGGML_RPC=ON",
)


def tool(name: str) -> Path:
    """The built program's path. Raises RuntimeError if it was not built yet."""
    path = _build_folder() / "bin" / name
    if not path.exists():
        raise RuntimeError(f"{name} is not built: run `python -m bench.export.native` first")
    return path


def build(source: Path | None, jobs: int) -> Path:
    """Compiles `TOOLS` and returns the folder that holds them. What is built is kept."""
    folder = _build_folder()
    number = EXPECTED_VERSION.split(".")[-1]
    configure = [
        "cmake", "-G", "Ninja", "-S", str(native.source_folder(source)), "-B", str(folder),
        f"-DLLAMA_BUILD_NUMBER={number}", *CMAKE_OPTIONS,
    ]  # fmt: skip
    subprocess.run(configure, check=True)
    make = ["nice", "-n", "19", "ninja", "-C", str(folder), f"-j{jobs}", *TOOLS]
    subprocess.run(make, check=True)
    return folder / "bin"


def _build_folder() -> Path:
    return cache_folder() / f"server-{EXPECTED_VERSION}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, help="the unpacked source distribution")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    print(build(options.source, options.jobs))


if __name__ == "__main__":
    main()
