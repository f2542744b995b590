"""How long `moestro inspect` takes on a 386 GiB-class model with a 248,320-entry vocabulary.

    python -m bench.inspect_speed [--runs 5] [--with-gguf-package]

Writes a sparse file of the true length (header only: DeepSeek-V3's shapes with the largest
vocabulary in use), then measures whole processes, from start to exit. `--with-gguf-package` also
times `gguf.GGUFReader` on the same file, which takes a while.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.shapes import families
from tests.shapes.shape import Shape
from tests.shapes.write import write_header

VOCABULARY = 248_320


def large_model() -> Shape:
    """DeepSeek-V3 with a vocabulary of 248,320, its merges included (see `merges`)."""
    return families.deepseek2(
        layers=61, hidden=7168, heads=128, q_lora=1536, kv_lora=512, rope_dim=64, nope_dim=128,
        value_dim=128, ffn=18432, expert_ffn=2048, experts=256, used=8, shared=1, dense_lead=3,
        vocab=VOCABULARY, mtp=0,
    )  # fmt: skip


def merges() -> dict[str, list[str]]:
    """As many merges as real vocabularies of this size have; lengths like theirs."""
    return {"tokenizer.ggml.merges": [f"Ġab{i % 997} c{i % 89}" for i in range(VOCABULARY - 700)]}


def seconds(command: list[str]) -> tuple[float, float]:
    """(wall, CPU) seconds of one process."""
    before = os.times()
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - began
    after = os.times()
    cpu = after.children_user + after.children_system
    return wall, cpu - before.children_user - before.children_system


def measure(name: str, command: list[str], runs: int) -> dict[str, object]:
    seconds(command)  # the first run compiles byte code and fills the page cache
    times = [seconds(command) for _ in range(runs)]
    return {
        "what": name,
        "runs": runs,
        "wall_seconds_median": round(statistics.median(wall for wall, _ in times), 3),
        "wall_seconds_least": round(min(wall for wall, _ in times), 3),
        "cpu_seconds_median": round(statistics.median(cpu for _, cpu in times), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--with-gguf-package", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = write_header(large_model(), Path(folder) / "large.gguf", extra=merges())
        header_bytes = path.stat().st_blocks * 512
        print(
            json.dumps(
                {
                    "file_gib": round(path.stat().st_size / 2**30, 1),
                    "header_mib": round(header_bytes / 2**20, 1),
                    "vocabulary": VOCABULARY,
                    "processors": os.cpu_count(),
                    "load_average": round(os.getloadavg()[0], 1),
                    "python": platform.python_version(),
                }
            )
        )
        inspect = [sys.executable, "-m", "moestro", "inspect", str(path)]
        print(json.dumps(measure("moestro inspect --json", [*inspect, "--json"], options.runs)))
        print(json.dumps(measure("moestro inspect", inspect, options.runs)))
        print(json.dumps(measure("python -c pass", [sys.executable, "-c", "pass"], options.runs)))
        if options.with_gguf_package:
            code = f"import gguf; gguf.GGUFReader({str(path)!r})"
            wall, cpu = seconds([sys.executable, "-c", code])
            print(
                json.dumps(
                    {
                        "what": "gguf.GGUFReader",
                        "runs": 1,
                        "wall_seconds_median": round(wall, 3),
                        "cpu_seconds_median": round(cpu, 3),
                    }
                )
            )


if __name__ == "__main__":
    main()
