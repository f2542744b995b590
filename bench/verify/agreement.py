"""Does verify measure what llama.cpp's own `llama-perplexity --kl-divergence` measures?

    python -m bench.verify.agreement [--chunks 16]       # results/agreement.json

Both read the same text in the same chunks of 512 tokens, on the same engine (`perplexity_tool`).
llama-perplexity keeps the reference's log-probabilities in a file, in 16 bits, cut off 16 nats
below each row's greatest; verify takes the logits as they are. So the reference's perplexity is
taken from llama-perplexity's first pass, which has whole logits too: from the file it is lower, as
far as the text's own tokens are cut off. Its tool compiled apart is another engine (`--native`).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.cache import cache_folder
from bench.native import tool
from bench.verify.models import CLEAN, NAMES, clean, f16
from bench.verify.running import against, rounded
from bench.verify.texts import source
from moestro.verify.corpus import CHUNK_TOKENS, Passage
from moestro.verify.subject import Options

RESULTS = Path(__file__).parent / "results"
ATTEMPTS = 12

PATTERNS = {
    "perplexity": r"Mean PPL\(Q\)\s*:\s*([\d.]+)",
    "kld_mean": r"Mean\s+KLD:\s*(-?[\d.]+)",
    "kld_median": r"Median\s+KLD:\s*(-?[\d.]+)",
    "kld_p90": r"90\.0%\s+KLD:\s*(-?[\d.]+)",
    "kld_p99": r"99\.0%\s+KLD:\s*(-?[\d.]+)",
    "kld_max": r"Maximum\s+KLD:\s*(-?[\d.]+)",
    "top1_agreement": r"Same top p:\s*([\d.]+)",
}
"""In what llama-perplexity prints at its end; agreement in per cent."""


def theirs(pair: tuple[Path, Path], text: Path, chunks: int, *, native: bool) -> dict[str, float]:
    """llama-perplexity's figures for (reference, candidate)."""
    base = text.with_suffix(".base")
    one = str(CHUNK_TOKENS)
    common = ["-f", str(text), "-c", one, "-b", one, "-ub", one, "-t", str(os.cpu_count())]
    common += ["--chunks", str(chunks), "--kl-divergence-base", str(base)]
    final = r"Final estimate: PPL = ([\d.]+)"
    first = _run(pair[0], common, (final,), native=native)
    printed = _run(pair[1], [*common, "--kl-divergence"], PATTERNS.values(), native=native)
    base.unlink()
    found = {name: float(_found(pattern, printed)) for name, pattern in PATTERNS.items()}
    found["top1_agreement"] /= 100
    found["perplexity_reference"] = float(_found(final, first))
    found["perplexity_ratio"] = found["perplexity"] / found["perplexity_reference"]
    return found


def _run(model: Path, options: Sequence[str], wanted: Iterable[str], *, native: bool) -> str:
    """The compiled tool's log is sometimes cut off at its end, so it is asked again then."""
    shared = [sys.executable, "-m", "bench.verify.perplexity_tool"]
    command = [str(tool("llama-perplexity"))] if native else shared
    patterns = tuple(wanted)
    for _ in range(ATTEMPTS):
        done = subprocess.run(
            [*command, "-m", str(model), *options], capture_output=True, text=True, check=False
        )
        printed = done.stdout + done.stderr
        if all(re.search(pattern, printed) for pattern in patterns):
            return printed
    raise RuntimeError(f"llama-perplexity did not print its results:\n{printed[-2000:]}")


def _found(pattern: str, printed: str) -> str:
    match = re.search(pattern, printed)
    assert match is not None
    return match[1]


def ours(reference: Path, candidate: Path, text: Path, chunks: int) -> dict[str, float | None]:
    passages = [Passage("text", text.read_text(encoding="utf-8"))]
    options = Options(tokens=chunks * CHUNK_TOKENS, generations=0, files=False)
    found = against(reference, candidate, passages, options).divergence
    assert found is not None
    intervals = (found.kld_mean, found.top1_agreement, found.perplexity_ratio)
    mean, same, ratio = (one.value if one is not None else None for one in intervals)
    return {
        "perplexity": found.perplexity,
        "perplexity_reference": found.perplexity_reference,
        "perplexity_ratio": ratio,
        "kld_mean": mean,
        "kld_median": found.kld_median,
        "kld_p90": found.kld_p90,
        "kld_p99": found.kld_p99,
        "kld_max": found.kld_max,
        "top1_agreement": same,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chunks", type=int, default=16)
    parser.add_argument("--native", action="store_true", help="against the tool compiled apart")
    parser.add_argument("--only", nargs="*", choices=NAMES, default=NAMES)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        for name in options.only:
            # Just as much as both will use: with more, verify would choose other chunks.
            text = Path(folder) / f"{name}.txt"
            text.write_text(_cut_for(f16(name), options.chunks), encoding="utf-8")
            for label in CLEAN:
                pair = f16(name), clean(name, label)
                row = {
                    "model": name,
                    "quantization": label,
                    "chunks": options.chunks,
                    "llama_perplexity": theirs(pair, text, options.chunks, native=options.native),
                    "moestro": ours(*pair, text, options.chunks),
                }
                row["relative_difference"] = _relative(row["moestro"], row["llama_perplexity"])
                rows.append(rounded(row))
                print(json.dumps(rounded(row["relative_difference"])), name, label, flush=True)
    RESULTS.mkdir(exist_ok=True)
    name = "agreement_native.json" if options.native else "agreement.json"
    (RESULTS / name).write_text(json.dumps(rows, indent=1) + "\n")


def _cut_for(model: Path, chunks: int) -> str:
    """The longest beginning of the prose that has just `chunks` chunks and not one more."""
    from bench.verify.running import subject
    from moestro.engine.llama_cpp.capture import Capture

    whole = source("prose")[: chunks * CHUNK_TOKENS * 8]
    asked = subject(model)
    with Capture(asked.model, asked.settings) as engine:
        low, high = 0, len(whole)
        while high - low > 1:
            middle = (low + high) // 2
            fits = len(engine.tokenize(whole[:middle])) < (chunks + 1) * CHUNK_TOKENS
            low, high = (middle, high) if fits else (low, middle)
    return whole[:low]


def _relative(ours: dict[str, float | None], theirs: dict[str, float]) -> dict[str, float | None]:
    return {
        name: None if (mine := ours[name]) is None or not theirs[name] else mine / theirs[name] - 1
        for name in theirs
    }


if __name__ == "__main__":
    main()
