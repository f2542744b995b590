"""What verify costs: time against two plain passes over the same tokens, and memory.

    python -m bench.verify.cost [--rounds 3]      # results/cost.json

A plain pass is the engine alone, without callbacks, in a process of its own, with logits for every
token. Two of them, reference and candidate, are what any comparison needs at least. verify's text
stage is held against that; loading, reading the files and the generations are told apart. Passes
and verifications take turns; the ratio is the median of the rounds'. Memory is the private memory
of all of verify's processes at its greatest, for a short and a long text, polled.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench.cache import cache_folder
from bench.verify.models import clean, f16
from bench.verify.running import against, rounded, subject
from bench.verify.texts import source
from moestro.engine.llama_cpp.capture import Capture
from moestro.verify.corpus import CHUNK_TOKENS, Passage
from moestro.verify.corpus import built_in as built_in_text
from moestro.verify.sides import chunks_of, fed
from moestro.verify.subject import Options

RESULTS = Path(__file__).parent / "results"
QUANTIZATION = "Q4_K_M"
TOKENS = {"demo": 16_384, "llama": 1024}
SHORT_CHUNKS, LONG_CHUNKS = 8, 256
POLL_SECONDS = 0.05


def time_against_passes(model: str, rounds: int) -> dict[str, Any]:
    """Medians over `rounds`; plain passes and verify see the same chunks."""
    pair = f16(model), clean(model, QUANTIZATION)
    passages = built_in_text()
    options = Options(tokens=TOKENS[model], generations=0)
    asked = subject(pair[0])
    with Capture(asked.model, asked.settings) as engine:
        chunks = chunks_of(engine, passages, options)
        tokens = np.array([fed(chunk, engine.vocabulary) for chunk in chunks], dtype=np.int32)
    plain, text, files, whole = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "tokens.npy"
        np.save(listed, tokens)
        for _ in range(rounds):
            plain.append(sum(_plain(path, listed) for path in pair))
            began = time.perf_counter()
            found = against(*pair, passages, options)
            whole.append(time.perf_counter() - began)
            text.append(found.seconds["text"])
            files.append(found.seconds["files"])
    # Of each round, because a machine has slow minutes that both sides of a round share.
    ratios = [stage / two for stage, two in zip(text, plain, strict=True)]
    return {
        "model": model,
        "tokens": int(tokens.size),
        "rounds": rounds,
        "two_plain_passes_seconds": statistics.median(plain),
        "text_stage_seconds": statistics.median(text),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "files_stage_seconds": statistics.median(files),
        "whole_without_generations_seconds": statistics.median(whole),
    }


def _plain(model: Path, tokens: Path) -> float:
    command = [sys.executable, "-m", "bench.verify.plain_pass", str(model), str(tokens)]
    command.append(str(os.cpu_count()))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)["pass_seconds"])


def default_run() -> dict[str, Any]:
    """The demo against its quantization as a user starts it, generations and all."""
    began = time.perf_counter()
    found = against(f16("demo"), clean("demo", QUANTIZATION), built_in_text(), Options())
    seconds = time.perf_counter() - began
    return {"tokens": found.tokens, "seconds": seconds, "stages": found.seconds}


def memory(chunks: int) -> dict[str, Any]:
    """The demo against its quantization over a text of so many chunks."""
    text = source("prose")[: chunks * CHUNK_TOKENS * 4]
    options = Options(tokens=chunks * CHUNK_TOKENS, generations=0)
    pair = f16("demo"), clean("demo", QUANTIZATION)
    tokens, peak_bytes = _peak(lambda: against(*pair, [Passage("prose", text)], options).tokens)
    return {"tokens": tokens, "peak_bytes": peak_bytes}


def _peak(work: Callable[[], int]) -> tuple[int, int]:
    """What `work` returns, and the greatest private memory of this process and its children while
    it ran, above what this process had before."""
    me = psutil.Process()
    before, greatest, done = me.memory_full_info().uss, 0, threading.Event()

    def poll() -> None:
        nonlocal greatest
        while not done.wait(POLL_SECONDS):
            greatest = max(greatest, _private_bytes(me) - before)

    watcher = threading.Thread(target=poll)
    watcher.start()
    try:
        return work(), greatest
    finally:
        done.set()
        watcher.join()


def _private_bytes(parent: psutil.Process) -> int:
    total = parent.memory_full_info().uss
    for child in parent.children(recursive=True):
        try:
            total += child.memory_full_info().uss
        except psutil.NoSuchProcess:
            continue  # ended meanwhile
    return int(total)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=TOKENS, default=list(TOKENS))
    parser.add_argument("--part", choices=("time", "default", "memory"), help="one part only")
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    cache_folder()
    kept = RESULTS / "cost.json"
    found: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    if options.part in (None, "time"):
        for model in options.only:
            found[f"time {model}"] = time_against_passes(model, options.rounds)
    if options.part in (None, "default"):
        found["default run on the demo"] = default_run()
    if options.part in (None, "memory"):
        found["memory"] = [memory(SHORT_CHUNKS), memory(LONG_CHUNKS)]
    kept.write_text(json.dumps(rounded(found), indent=1) + "\n")
    print(kept.read_text())


if __name__ == "__main__":
    main()
