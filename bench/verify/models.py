"""The models of the benches: upcycled SmolLM2, and clean quantizations of them and of the demo.

    python -m bench.verify.models                 # everything, into the benches' cache: 5 GB
    python -m bench.verify.models --only llama    # one model and its quantizations
    python -m bench.verify.models --perplexity    # and how well each F16 file speaks

Quantizations are llama-quantize's own, from F16. Rows of SmolLM2's hidden size (576) are no
multiple of 256, so there llama.cpp puts Q5_0, Q5_1 and Q8_0 where a K-quant was asked for; the
demo model (256) gets true K-quants.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from tests.rewriting import Gguf
from tests.smollm import smollm

from bench.cache import cache_folder
from bench.native import tool
from bench.verify import upcycle
from bench.verify.texts import COUNTS, source
from moestro.demo import model_path
from moestro.engine.llama_cpp.capture import Capture
from moestro.model import read_model
from moestro.planning.settings import Settings

CLEAN = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")
UPCYCLED = tuple(upcycle.LAYOUTS)
NAMES = ("demo", *UPCYCLED)


def f16(name: str) -> Path:
    """The F16 file of the model `name`, one of NAMES; made if it is not there."""
    if name == "demo":
        return model_path()
    path = _folder() / f"smollm2-{name}-f16.gguf"
    if not path.exists():
        dense = Gguf.open(smollm())
        partial = path.with_suffix(".partial")
        upcycle.LAYOUTS[name](dense, layers()).write(partial)
        partial.replace(path)
    return path


def dense_f16() -> Path:
    """SmolLM2 itself, every matrix in F16."""
    path = _folder() / "smollm2-dense-f16.gguf"
    if not path.exists():
        partial = path.with_suffix(".partial")
        upcycle.as_f16(Gguf.open(smollm())).write(partial)
        partial.replace(path)
    return path


def clean(name: str, label: str) -> Path:
    """A quantization of `f16(name)` by llama-quantize; made if it is not there."""
    path = _folder() / f"{'demo' if name == 'demo' else f'smollm2-{name}'}-{label.lower()}.gguf"
    if not path.exists():
        partial = path.with_suffix(".partial")
        command = [
            str(tool("llama-quantize")),
            str(f16(name)),
            str(partial),
            label,
            str(os.cpu_count()),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"llama-quantize failed on {name}:\n{done.stderr[-2000:]}")
        partial.replace(path)
    return path


def layers() -> list[upcycle.Layer]:
    """What the routers of the upcycled models are made from; surveyed once."""
    path = _folder() / "survey.npz"
    if not path.exists():
        per_source = upcycle.SAMPLE_TOKENS // len(COUNTS)
        text = "\n".join(source(kind)[: per_source * 6] for kind in COUNTS)
        with Capture(read_model(smollm()), Settings(context=512, parallel=1, threads=2)) as engine:
            tokens = np.array(engine.tokenize(text))
        chosen = np.random.default_rng(0).permutation(len(tokens) // upcycle.CHUNK)
        chunks = chosen[: upcycle.SAMPLE_TOKENS // upcycle.CHUNK]
        sample = np.concatenate([tokens[c * 512 : (c + 1) * 512] for c in chunks])
        upcycle.save_survey(upcycle.survey(Gguf.open(smollm()), sample), path)
    return upcycle.load_survey(path)


def perplexity(path: Path, text: str, chunks: int) -> float:
    """By llama-perplexity, over the first `chunks` chunks of 512 tokens."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        command = [str(tool("llama-perplexity")), "-m", str(path), "-f", file.name, "-c", "512"]
        options = ["--chunks", str(chunks), "-t", str(os.cpu_count())]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    found = re.search(r"Final estimate: PPL = ([\d.]+)", done.stdout + done.stderr)
    assert found is not None, done.stderr[-2000:]
    return float(found[1])


def _folder() -> Path:
    folder = cache_folder() / "models"
    folder.mkdir(exist_ok=True)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=NAMES, default=NAMES)
    parser.add_argument("--perplexity", action="store_true")
    options = parser.parse_args()
    for name in options.only:
        began = time.perf_counter()
        files = [f16(name), *(clean(name, label) for label in CLEAN)]
        print(f"{name}: {time.perf_counter() - began:.0f} s")
        for path in files:
            print(f"  {path.name:32} {path.stat().st_size / 2**20:7.1f} MiB")
    if options.perplexity:
        text = source("prose")
        dense = perplexity(dense_f16(), text, 8)
        print(f"perplexity over 8 chunks of prose: dense {dense:.2f}")
        for name in options.only:
            print(f"  {name}: {perplexity(f16(name), text, 8):.2f}")


if __name__ == "__main__":
    main()
