"""The dry run and the formulae against memory that the engine really took.

    python -m bench.planner.memory_check --models DIR [--results FILE]

Reads what `memory_truth` recorded, makes the tiny models again (same bytes), finds the others in
DIR, and asks the dry run and the ledger for the same settings. Compared are caches, the graph's
buffers with the output rows, repacked weights, and the sum of all with the file's weights. The
truth is the engine's log, which prints MiB with two digits: 5 KiB is the grain of each buffer.

What the log calls CPU_Mapped is a stretch of the file, from its first tensor in use to its last, so
it holds the originals of repacked weights too. In the sum these count once, as in the ledger: their
pages can be dropped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from tests.tiny_models import write_tiny

from moestro.engine.llama_cpp.dry_run import DryRun
from moestro.errors import EngineStartFailed
from moestro.hardware import this_inventory
from moestro.model import read_model
from moestro.planning.memory import Ledger, ledger
from moestro.planning.placement import place
from moestro.planning.settings import Settings

TRUTH = Path(__file__).parent / "results" / "memory_truth.json"
GRAIN_BYTES = 5300
"""Half of 0.01 MiB, for each buffer of the log."""


def seen_bytes(buffers: list[dict[str, Any]], kinds: tuple[str, ...]) -> int:
    return sum(b["bytes"] for b in buffers if b["kind"] in kinds and b["device"] != "CPU_Mapped")


def parts(found: Ledger) -> dict[str, int]:
    """The ledger's lines that stand for buffers of the log."""
    lines = [line for line in found.device("CPU").lines if line.resident]
    wanted = ("draft cache", "draft graph", "draft outputs")
    drafts = sum(line.size_bytes for line in lines if line.kind in wanted)
    repacked = sum(line.size_bytes for line in lines if line.kind == "weights, repacked")
    host = found.device("CPU")
    return {
        "repacked": repacked,
        "plain": host.weights_bytes - repacked,
        "rest": host.cache_bytes + host.compute_bytes + drafts,
    }


def compare(entry: dict[str, Any], path: Path) -> dict[str, Any]:
    settings = Settings.from_json(entry["settings"])
    model, inventory = read_model(path), this_inventory(gpus=False)
    placement = place(model, settings)
    with DryRun(model, ()) as run:
        engine = run.memory(settings)
    by_engine = parts(ledger(model, settings, inventory, placement, engine))
    by_formula = parts(ledger(model, settings, inventory, placement))
    buffers = entry["buffers"]
    rest = seen_bytes(buffers, ("kv", "recurrent", "rs", "compute", "output"))
    repacked = sum(b["bytes"] for b in buffers if b["device"] == "CPU_REPACK")
    truth = by_engine["plain"] + repacked + rest
    errors = {
        name: (sum(found.values()) - truth) / truth
        for name, found in (("dry run", by_engine), ("formula", by_formula))
    }
    return {
        "model": entry["model"],
        "architecture": entry["architecture"],
        "settings": entry["settings"],
        "buffers_seen_bytes": rest + repacked,
        "buffers_dry_run_bytes": by_engine["rest"] + by_engine["repacked"],
        "errors": errors,
        "grain": GRAIN_BYTES * len(buffers) / truth,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--truth", type=Path, default=TRUTH)
    parser.add_argument("--results", type=Path, default=TRUTH.with_name("memory_check.json"))
    asked = parser.parse_args()
    entries = json.loads(asked.truth.read_text(encoding="utf-8"))["entries"]
    rows, refused = [], []
    with tempfile.TemporaryDirectory() as folder:
        for entry in entries:
            name = entry["model"]
            tiny = name.removeprefix("tiny-")
            if name.startswith("tiny-"):
                path = write_tiny(tiny, Path(folder))
            else:
                path = asked.models / f"{name}.gguf"
            try:
                rows.append(compare(entry, path))
            except EngineStartFailed as error:  # its log ends after its buffers, if loaded really
                refused.append({"model": name, "settings": entry["settings"], "why": str(error)})
                print(f"{name:28} refused: {error}")
                continue
            print(f"{name:28} " + "  ".join(f"{k} {v:+.3%}" for k, v in rows[-1]["errors"].items()))
    summary = {
        name: {
            "cases": len(rows),
            "architectures": len({row["architecture"] for row in rows}),
            "median": statistics.median(abs(row["errors"][name]) for row in rows),
            "worst": max(abs(row["errors"][name]) for row in rows),
        }
        for name in ("dry run", "formula")
    }
    print(json.dumps(summary, indent=1))
    text = json.dumps({"summary": summary, "refused": refused, "rows": rows}, indent=1)
    asked.results.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
