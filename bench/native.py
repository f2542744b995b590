"""Builds llama.cpp's own tools, of the very release that the embedded engine is.

    python -m bench.native                       # about 20 minutes on two cores, once
    python -m bench.native --source DIR          # with the sdist unpacked already

`llama-perplexity` is what moestro's divergence is held to, `llama-quantize` makes the clean
quantizations, `llama-server` reads what is exported. It counts devices over RPC (`ggml-rpc-server`)
as GPUs, so two of them on the processor show what it makes of settings for GPUs. None of the tools
ships with moestro: they are compiled from the source distribution of the
pinned `xllamacpp`, which holds the engine's whole source, for the processor alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from bench.cache import cache_folder
from moestro.engine.llama_cpp.version import EXPECTED_VERSION, PACKAGE

TOOLS = ("llama-perplexity", "llama-quantize", "llama-server", "ggml-rpc-server")
SOURCE_INSIDE = "thirdparty/llama.cpp"
CMAKE_OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_BUILD_SERVER=ON",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DGGML_RPC=ON",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_OPENSSL=OFF",
    # The instructions that the embedded engine is compiled for, so that both compute alike. A build
    # for all of a processor's own crashed on Q8_0 where it has AMX.
    "-DGGML_NATIVE=OFF",
)


def tool(name: str) -> Path:
    """The built program's path. Raises RuntimeError if it was not built yet."""
    path = _build_folder() / "bin" / name
    if not path.exists():
        raise RuntimeError(f"{name} is not built: run `python -m bench.native` first")
    return path


def build(source: Path | None, jobs: int) -> Path:
    """Compiles `TOOLS` and returns the folder that holds them. What is built is kept."""
    folder = _build_folder()
    source = source_folder(source)
    number = EXPECTED_VERSION.split(".")[-1]
    configure = [
        "cmake", "-G", "Ninja", "-S", str(source), "-B", str(folder),
        f"-DLLAMA_BUILD_NUMBER={number}", *CMAKE_OPTIONS,
    ]  # fmt: skip
    subprocess.run(configure, check=True)
    subprocess.run(
        ["nice", "-n", "19", "ninja", "-C", str(folder), f"-j{jobs}", *TOOLS], check=True
    )
    return folder / "bin"


def source_folder(given: Path | None) -> Path:
    """llama.cpp's source: in the unpacked distribution `given`, or fetched."""
    kept = cache_folder() / f"source-{EXPECTED_VERSION}"
    return _llama_cpp(given) if given is not None else _fetch(kept)


def _build_folder() -> Path:
    return cache_folder() / f"native-{EXPECTED_VERSION}"


def _fetch(target: Path) -> Path:
    """Downloads and unpacks the source distribution to `target`; its path of llama.cpp."""
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
            wanted = f"{PACKAGE}=={EXPECTED_VERSION}"
            subprocess.run([*command, "--dest", folder, wanted], check=True)
            (archive,) = Path(folder).glob("*.tar.gz")
            unpacked = Path(folder) / "unpacked"
            with tarfile.open(archive) as file:
                file.extractall(unpacked, filter="data")
            (inner,) = unpacked.iterdir()
            os.replace(inner, target)
    return _llama_cpp(target)


def _llama_cpp(source: Path) -> Path:
    inside = source / SOURCE_INSIDE
    return inside if inside.exists() else source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, help="the unpacked source distribution")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    print(build(options.source, options.jobs))


if __name__ == "__main__":
    main()
