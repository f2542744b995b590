"""How long a plan and the doctor take, as whole processes: Python, header, dry run, output.

    python -m bench.plan_speed [--runs 7] [--only doctor]

MODEL is Qwen3.6-35B-A3B's header, 248,320 tokens with it, in a sparse file; LARGE is DeepSeek-V3's,
of 129,280 tokens and 386 GiB of weights. Runs of the kinds are interleaved; printed are medians and
the fastest run of each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.shapes import PUBLISHED, write_header

KINDS = {
    "help": ["--help"],
    "plan, this machine": ["plan", "MODEL"],
    "plan, rtx-4090": ["plan", "MODEL", "--hardware", "rtx-4090"],
    "plan, rtx-4090, --json": ["plan", "MODEL", "--hardware", "rtx-4090", "--json"],
    "doctor, the machine alone": ["doctor", "--port", "0"],
    "doctor, demo model": ["doctor", "demo", "--port", "0"],
    "doctor, Qwen3.6-35B-A3B": ["doctor", "MODEL", "--port", "0"],
    "doctor, DeepSeek-V3": ["doctor", "LARGE", "--port", "0"],
}
SHAPES = {"MODEL": "Qwen3.6-35B-A3B", "LARGE": "DeepSeek-V3"}


def seconds(arguments: list[str]) -> float:
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "moestro", *arguments], capture_output=True, check=False
    )
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr.decode())
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--only", default="", help="kinds whose name holds this")
    options = parser.parse_args()
    runs, kinds = options.runs, {n: words for n, words in KINDS.items() if options.only in n}
    taken: dict[str, list[float]] = {name: [] for name in kinds}
    with tempfile.TemporaryDirectory() as folder:
        models = {
            word: str(write_header(PUBLISHED[shape](), Path(folder) / f"{shape}.gguf"))
            for word, shape in SHAPES.items()
        }
        for _ in range(runs):
            for name, arguments in kinds.items():
                taken[name].append(seconds([models.get(word, word) for word in arguments]))
    summary = {
        name: {
            "median_seconds": round(statistics.median(values), 3),
            "fastest_seconds": round(min(values), 3),
        }
        for name, values in taken.items()
    }
    print(json.dumps({"runs": runs, "load": os.getloadavg()[0], **summary}, indent=1))


if __name__ == "__main__":
    main()
