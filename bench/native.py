"""Builds llama.cpp's own tools, of the very release that the embedded engine is.

    python -m bench.native                       # about 20 minutes on two cores, once
    python -m bench.native --source PATH         # with the source distribution at hand

`llama-perplexity` is what moestro's divergence is held to, `llama-quantize` makes the clean
quantizations, `llama-server` reads what is exported. It counts devices over RPC (`ggml-rpc-server`)
as GPUs, so two of them on the processor show what it makes of settings for GPUs. None of the tools
ships with moestro: they are compiled from the source distribution of the pinned `xllamacpp`, for
the processor alone and the instructions that the embedded engine is compiled for, so that both
compute alike. What `moestro engines build` makes uses all that the processor has.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from bench.cache import cache_folder
from moestro.engine.build.compile import compile_targets, configure
from moestro.engine.build.recipe import Recipe, recipe_for, this_host
from moestro.engine.build.source import identify
from moestro.engine.build.toolchain import find_toolchain
from moestro.engine.build.unpack import unpack
from moestro.engine.llama_cpp.facts import engine_facts
from moestro.engine.llama_cpp.version import EXPECTED_VERSION, PACKAGE

TOOLS = ("llama-perplexity", "llama-quantize", "llama-server", "ggml-rpc-server")
_KERNEL_WORDS = {"AVX": "avx", "F16C": "f16c", "FMA": "fma", "AVX2": "avx2", "BMI2": "bmi2"}


def tool(name: str) -> Path:
    """The built program's path. Raises RuntimeError if it was not built yet."""
    path = _build_folder() / "bin" / name
    if not path.exists():
        raise RuntimeError(f"{name} is not built: run `python -m bench.native` first")
    return path


def build(source: Path | None, jobs: int) -> Path:
    """Compiles `TOOLS` and returns the folder that holds them. What is built is kept."""
    folder = _build_folder()
    folder.mkdir(parents=True, exist_ok=True)
    tools = find_toolchain("llama.cpp")
    log = folder / "build.log"
    configure(tools, _recipe(), source_folder(source), folder, log, held=None)
    compile_targets(tools, folder, TOOLS, jobs, log, _say)
    return folder / "bin"


def source_folder(given: Path | None) -> Path:
    """llama.cpp's source: in the distribution `given`, unpacked or not, or fetched."""
    kept = cache_folder() / f"source-{EXPECTED_VERSION}"
    if given is not None and given.is_dir():
        return identify(given).folder
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=cache_folder()) as name:
            archive = given or _download(Path(name))
            unpacked = Path(name) / "unpacked"
            unpacked.mkdir()
            unpack(archive, unpacked)
            (inner,) = unpacked.iterdir()
            os.replace(inner, kept)
    return identify(kept).folder


def _recipe() -> Recipe:
    """As for an engine, but with the instructions of the embedded one and no more."""
    here = this_host(cuda=False)
    has = {_KERNEL_WORDS[name] for name in engine_facts().instruction_sets if name in _KERNEL_WORDS}
    host = replace(here, cpu_flags=here.cpu_flags & has)
    more = {"GGML_NATIVE": "OFF", "GGML_RPC": "ON",
            "LLAMA_BUILD_NUMBER": EXPECTED_VERSION.rpartition(".")[2]}  # fmt: skip
    return Recipe({**recipe_for("llama.cpp", host, lambda flag: True).options, **more}, ())


def _build_folder() -> Path:
    return cache_folder() / f"native-{EXPECTED_VERSION}"


def _download(folder: Path) -> Path:
    """The source distribution of the pinned package, in `folder`."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
    wanted = f"{PACKAGE}=={EXPECTED_VERSION}"
    subprocess.run([*command, "--dest", str(folder), wanted], check=True)
    (archive,) = folder.glob("*.tar.gz")
    return archive


def _say(done: int, total: int) -> None:
    print(f"\r{done} of {total}", end="", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, help="the source distribution")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    print(build(options.source, options.jobs))


if __name__ == "__main__":
    main()
