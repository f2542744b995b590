"""How long `make up` takes from the command to the first generated token, installation done.

    python -m bench.first_token [--runs 5] [--model MODEL]

The clock starts before `make` does and stops when the service reports its own first token, so it
covers make, Python, reading the header, choosing settings, loading the engine and the first
prompt.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def one_run(model: str | None) -> tuple[float, dict[str, object]]:
    """(seconds from the command to the first token, what `up --json` reported)."""
    command = ["make", "--silent", "up", "ARGS=--json --port 0"]
    if model is not None:
        command.append(f"MODEL={model}")
    started_at = time.time()
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("{"):
            break
    else:
        raise SystemExit("up ended before it was ready:\n" + "".join(lines))
    report = json.loads(lines[-1])
    # `up` counts from its own start; what make took before that comes on top.
    before_up = max(report["started_at"] - started_at, 0.0)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    return before_up + report["first_token_seconds"], report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--model", default=None)
    options = parser.parse_args()
    runs = [one_run(options.model) for _ in range(options.runs)]
    seconds = [taken for taken, _ in runs]
    rates = [float(str(report["decode_tokens_per_second"])) for _, report in runs]
    print(
        json.dumps(
            {
                "model": runs[0][1]["model"],
                "processors": os.cpu_count(),
                "load_average": round(os.getloadavg()[0], 1),
                "runs": options.runs,
                "first_token_seconds": [round(value, 2) for value in seconds],
                "first_token_seconds_median": round(statistics.median(seconds), 2),
                "decode_tokens_per_second_median": round(statistics.median(rates)),
            }
        )
    )


if __name__ == "__main__":
    main()
