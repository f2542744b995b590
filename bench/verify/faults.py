"""Does verify find planted faults, and does it call them by their name?

    python -m bench.verify.faults [--only MODEL …] [--faults NAME …]

Every kind of `tests/planted.py` on every model that it makes sense for: the demo (qwen35moe) in
F16 and, where a fault is harder to see, in Q4_K_M; the three upcycled SmolLM2 (llama, qwen2moe,
glm4moe); tiny random deepseek2 and qwen3moe. The reference is always the clean F16 file. Each is
compared twice: as a user would, and with the comparison of files switched off, so that only the
models' answers count. Results go to results/faults.json, one row at a time, and the table for
people to docs/reference/faults.md. Rows that are there are not run again; --again does.
"""

from __future__ import annotations

import argparse
import json
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tests.planted import FAULTS, Directions, Fault, plant
from tests.rewriting import Gguf
from tests.tiny_models import write_tiny

from bench.cache import cache_folder
from bench.verify.models import UPCYCLED, clean, f16, layers
from bench.verify.running import (
    Refused,
    alarms,
    figures,
    recorded,
    reference_file,
    rounded,
    try_against,
    verdict,
)
from moestro.verify.corpus import Passage, built_in
from moestro.verify.subject import Options

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "faults.md"
RESULTS = Path(__file__).parent / "results"
TINY = ("deepseek2", "qwen3moe")
DEMO_Q4 = "demo-q4_k_m"
MODELS = ("demo", DEMO_Q4, *(f"tiny-{name}" for name in TINY), *UPCYCLED)
NEEDS_BLOCKS_OF_Q8 = "block-scale-nan"
TOKENIZER = ("tokens-swapped", "merges-reversed")
"""Without the files, only a reference that runs can be asked for its tokens."""

SIZES = dict.fromkeys(("demo", DEMO_Q4), Options(tokens=8192, generations=8))
SLOW = Options(tokens=2048, generations=0)
"""A chunk of 512 tokens takes an upcycled model seconds."""


def size_of(model: str) -> Options:
    return SIZES.get(model, SLOW)


def reference_of(model: str) -> Path:
    if model.startswith("tiny-"):
        folder = cache_folder() / "tiny"
        folder.mkdir(exist_ok=True)
        name = model.removeprefix("tiny-")
        kept = folder / f"tiny-{name}.gguf"
        return kept if kept.exists() else write_tiny(name, folder)
    return f16("demo" if model == DEMO_Q4 else model)


def source_of(model: str, fault: str) -> Path:
    """What the fault is planted into: a clean file of the model."""
    if model == DEMO_Q4:
        return clean("demo", "Q4_K_M")
    if fault == NEEDS_BLOCKS_OF_Q8 and not model.startswith("tiny-"):
        return clean(model, "Q8_0")
    return reference_of(model)


def directions_of(model: str) -> Directions:
    if model not in UPCYCLED:
        return lambda block: None
    means = [layer.mean for layer in layers()]
    return lambda block: np.asarray(means[block])


def run(model: str, name: str, passages: Sequence[Passage]) -> dict[str, Any]:
    """One row: what was found with the files compared and without."""
    fault = FAULTS[name]
    target = cache_folder() / f"fault-{model}.gguf"
    reference, size = reference_of(model), size_of(model)
    kept = recorded(reference, f"faults-{model}", passages, size)
    seed = zlib.crc32(name.encode())
    plant(name, source_of(model, name), target, seed=seed, directions=directions_of(model))
    began = time.perf_counter()
    whole = try_against(kept, target, passages, size)
    seconds = time.perf_counter() - began
    row: dict[str, Any] = {
        "model": model,
        "fault": name,
        "harmless": fault.harmless,
        "verdict": verdict(whole),
        "seconds": round(seconds, 1),
        "codes": sorted({finding["code"] for finding in alarms(whole)}),
        "findings": alarms(whole),
        "figures": figures(whole),
    }
    # The text gives the same figures again: only what stopped early is run without files, and
    # what a recording cannot be asked for.
    alone = whole
    if isinstance(whole, Refused) or whole.divergence is None or name in TOKENIZER:
        only_text = replace(size, files=False)
        alone = try_against(reference if name in TOKENIZER else kept, target, passages, only_text)
    seen = sorted({finding["code"] for finding in alarms(alone)} & MEASURABLE)
    row |= {"measured_codes": seen, "measured_figures": figures(alone)}
    row |= _judged(fault, row)
    target.unlink()
    return row


MEASURABLE = frozenset(
    {
        "divergence-high", "divergence-tail", "top1-agreement-low", "perplexity-worse",
        "repetition", "routing-drift", "routing-collapse", "experts-dead", "output-not-finite",
        "engine-refused", "tokenizer-differs", "vocabulary-differs", "model-truncated",
    }
)  # fmt: skip


def _judged(fault: Fault, row: dict[str, Any]) -> dict[str, Any]:
    """`right`: an alarm names the fault, or a control raised none. `by_files`, `by_measurement`:
    which kind of check did; None where it could not."""
    by_files = bool(fault.codes & set(row["codes"]))
    by_measurement = bool(fault.measured & set(row["measured_codes"]))
    if fault.harmless:
        return {"right": not row["codes"], "by_files": None, "by_measurement": None}
    return {
        "right": row["verdict"] != "pass" and (by_files or by_measurement),
        "by_files": by_files if fault.codes else None,
        "by_measurement": by_measurement if fault.measured else None,
    }


INTRODUCTION = """# Planted faults

What `moestro verify` makes of files that were damaged on purpose: `python -m bench.verify.faults`
planted faults in {models} and compared {count} damaged files.
{found} were found, with a code that names the fault. Of {controls} controls, files that were
changed without harm, {passed} passed.

Each file was compared twice: as a user would, and with the comparison of files switched off, so
that only the models' answers and choices count. Running text alone cannot see everything: a damaged
expert of 16 that few tokens choose costs less than four bits per weight do, and a lost MTP block
changes no answer. That is why the files are compared too. “–”: nothing could be seen that way.
The models: {described}.

"""

DESCRIBED = {
    "demo": "the demo model (qwen35moe, F16)",
    "demo-q4_k_m": "its Q4_K_M against the F16",
    "tiny-deepseek2": "a tiny random deepseek2 (sigmoid gating with a bias, shared experts)",
    "tiny-qwen3moe": "a tiny random qwen3moe",
    "llama": "SmolLM2-135M as four experts (Mixtral's layout)",
    "qwen2moe": "SmolLM2-135M as four experts of a qwen2moe, with a shared one",
    "glm4moe": "SmolLM2-135M as four experts of a glm4moe (sigmoid gating with a bias)",
}


def page(rows: Sequence[dict[str, Any]]) -> str:
    """The table with what a reader has to know of it."""
    real = [row for row in rows if not row["harmless"]]
    models = list(dict.fromkeys(row["model"] for row in rows))
    controls = [row for row in rows if row["harmless"]]
    found = sum(bool(row["right"]) for row in real)
    return INTRODUCTION.format(
        count=len(real),
        models=f"{len(models)} models",
        found="All" if found == len(real) else f"{found}",
        controls=len(controls),
        passed=sum(row["verdict"] == "pass" for row in controls),
        described="; ".join(DESCRIBED[model] for model in models),
    ) + table(rows)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line a fault: of the models it was planted in, how many verify found, and how."""
    lines = [
        "| fault | what is wrong | found | by comparing files | by running text alone | codes |",
        "|---|---|---|---|---|---|",
    ]
    for name, fault in FAULTS.items():
        own = [row for row in rows if row["fault"] == name]
        if not own:
            continue
        right = f"{sum(row['right'] for row in own)} of {len(own)}"
        if fault.harmless:
            right = f"passed {right}"
        codes = sorted({code for row in own for code in row["codes"]})
        shares = [_share(own, "by_files"), _share(own, "by_measurement")]
        lines.append(
            f"| {name} | {fault.says} | {right} | {' | '.join(shares)} | {', '.join(codes)} |"
        )
    return "\n".join(lines) + "\n"


def _share(rows: Sequence[dict[str, Any]], key: str) -> str:
    known = [row[key] for row in rows if row[key] is not None]
    return f"{sum(known)} of {len(known)}" if known else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=MODELS, default=MODELS)
    parser.add_argument("--faults", nargs="*", choices=[*FAULTS], default=[*FAULTS])
    parser.add_argument("--again", action="store_true", help="renew rows and recordings")
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    kept = RESULTS / "faults.json"
    rows: dict[str, Any] = {}
    if kept.exists():
        rows = {f"{row['model']} {row['fault']}": row for row in json.loads(kept.read_text())}
    passages = built_in()
    for model in options.only:
        if options.again:
            reference_file(f"faults-{model}").unlink(missing_ok=True)
        for name in options.faults:
            fits = FAULTS[name].fits(Gguf.open(source_of(model, name)))
            if not fits or (f"{model} {name}" in rows and not options.again):
                continue
            row = rounded(run(model, name, passages))
            rows[f"{model} {name}"] = row
            kept.write_text(json.dumps(list(rows.values()), indent=1) + "\n")
            mark = "ok  " if row["right"] else "MISS"
            print(
                f"{mark} {model:14} {name:28} {row['verdict']:4} {row['seconds']:6.1f} s "
                f"{', '.join(row['codes'])} | {', '.join(row['measured_codes'])}",
                flush=True,
            )
    PAGE.write_text(page(list(rows.values())))


if __name__ == "__main__":
    main()
