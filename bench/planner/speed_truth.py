"""How fast the engine really reads and writes, case by case: what forecasts are judged by.

    python -m bench.planner.speed_truth --models DIR --set test [--rounds 1] [--only PART …]
        [--lock FILE] [--output FILE]

Each case starts the engine as `moestro up` does and talks to its HTTP server with the server's own
sampling (temperature 0.8, top-k 40, top-p 0.95, min-p 0.05), tokens streamed. Prompts are random
token ids. The file is filled up until each case has `--rounds` rounds; every case has its first
before any has its second, so that rounds lie apart.

Reading: one stream alone, `prompt` tokens, the server's own clock. Writing: the times between the
tokens of the stream that began last, while all streams write; every stream gets one token a step.

Shared machines disturb: other guests take the processors away, for milliseconds or for half of the
time, and a thread that would watch when costs the engine a twentieth of its speed. So what share
was taken away (`stolen`) or used by others (`others`) is kept of every figure, writing is tried up
to three times until that is little, and two rates are kept. `typical` is the median of all there
was. `calm` is the machine while nobody disturbs it: the tenth percentile of the step times, and of
prompts the median, of what lost at most a tenth of the processors.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil

from bench.planner.cases import MODELS, SETS, Case
from bench.planner.completions import Completion, complete
from bench.planner.kernel_rates import load_rates
from bench.planner.machine import describe
from moestro.engine.llama_cpp.calibrate import calibrate
from moestro.engine.llama_cpp.engine import LlamaCppEngine
from moestro.engine.protocol import EngineRequest
from moestro.model import read_model
from moestro.planning.work import attention_shapes, product_types

RESULTS = Path(__file__).parent / "results"
START_SECONDS = 300.0
SHORT_PROMPT = 16
WARM_UP_ANSWER = 8
PREFILL_REPEATS = 2
TURN_SECONDS = 150.0
QUANTILES = np.linspace(0, 1, 21)
TENTH = 2
"""Place of the tenth percentile among the quantiles."""
ATTEMPTS = 3
LITTLE = 0.05
LOST_AT_MOST = 0.1
SAMPLERS = ("temperature", "top_k", "top_p", "min_p", "samplers")


def prompt_of(tokens: int, vocabulary: int) -> list[int]:
    """Random ids beyond the single bytes and below the control tokens."""
    return [random.randrange(256, vocabulary - 8) for _ in range(tokens)]


class Disturbance:
    """Shares of all processors, from its making until `shares`: taken away, and used by others."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._self = psutil.Process()
        self._before = self._now()

    def shares(self) -> dict[str, float]:
        after = self._now()
        whole, stolen, busy, own = (b - a for a, b in zip(self._before, after, strict=True))
        return {
            "stolen": round(stolen / whole, 3),
            "others": round(max(busy - own, 0.0) / whole, 3),
        }

    def _now(self) -> tuple[float, float, float, float]:
        times = psutil.cpu_times()
        steal = getattr(times, "steal", 0.0)
        engine, client = self._process.cpu_times(), self._self.cpu_times()
        own = engine.user + engine.system + client.user + client.system
        return (
            time.monotonic() * (psutil.cpu_count() or 1),
            steal,
            times.user + getattr(times, "nice", 0.0) + times.system,
            own,
        )


class Turn:
    """The sole use of the machine, among those who agree on a lock file; given up now and then."""

    def __init__(self, lock: Path | None) -> None:
        self._file = lock.open("a") if lock is not None else None
        self._since: float | None = None

    def take(self) -> None:
        if self._file is not None and self._since is None:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._since = time.monotonic()

    def offer(self, after_seconds: float = 0.0) -> None:
        """Lets others have theirs if this turn is older than that."""
        if self._file is None or self._since is None:
            return
        if time.monotonic() - self._since >= after_seconds:
            fcntl.flock(self._file, fcntl.LOCK_UN)
            self._since = None
            time.sleep(0.2)


def rates_now(case: Case, path: Path) -> dict[str, Any]:
    """The machine's kernels in the state it is in: those of the matrices and of attention."""
    spec, cache = read_model(path), case.cache_type.upper()
    stored = load_rates(case.threads)
    assert stored is not None, "first: python -m bench.planner.speed_error --calibrate"
    measured = calibrate(
        case.threads,
        sorted(product_types(spec)),
        sorted(attention_shapes(spec, cache, cache)),
        known=stored,
        rounds=1,
    ).to_json()
    kinds = {name: measured["types"][name] for name in sorted(product_types(spec))}
    heads = attention_shapes(spec, cache, cache)
    keys = ("key", "value", "type_k", "type_v", "kv_heads")
    attention = [a for a in measured["attention"] if tuple(a[key] for key in keys) in heads]
    return {"types": kinds, "attention": attention}


async def measure(case: Case, path: Path) -> dict[str, Any]:
    """One round of one case."""
    vocabulary = MODELS[case.model].make().vocab
    engine = LlamaCppEngine(EngineRequest(path, case.model, case.settings))
    try:
        await engine.start(START_SECONDS)
        assert engine.pid is not None
        warm = prompt_of(SHORT_PROMPT, vocabulary)
        sampling = (await complete(engine, warm, WARM_UP_ANSWER)).settings
        reading, writing = [], []
        for _ in range(PREFILL_REPEATS if case.prompt else 0):
            disturbance = Disturbance(engine.pid)
            done = await complete(engine, prompt_of(case.prompt, vocabulary), 1)
            reading.append(reading_of(done) | disturbance.shares())
        prompts = [
            prompt_of(max(case.depth, SHORT_PROMPT), vocabulary) for _ in range(case.streams)
        ]
        deep = None
        for attempt in range(ATTEMPTS):
            disturbance = Disturbance(engine.pid)
            streams = await asyncio.gather(
                *(
                    complete(engine, prompt, case.lead + case.answer, cached=attempt > 0)
                    for prompt in prompts
                )
            )
            shares = disturbance.shares()
            if attempt == 0 and case.depth and case.streams == 1:
                deep = reading_of(streams[0]) | shares
            writing.append(writing_of(case, streams) | shares)
            if lost(shares) <= LITTLE:
                break
    finally:
        await engine.stop()
    round_: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "started_seconds": round(engine.started_seconds or 0.0, 2),
        "prefill": reading,
        "decode": min(writing, key=lost),
        "sampling": {key: sampling[key] for key in SAMPLERS if key in sampling},
    }
    if deep is not None:
        round_["prefill_to_depth"] = deep
    return round_


def lost(figures: dict[str, Any]) -> float:
    return float(figures["stolen"] + figures["others"])


def reading_of(done: Completion) -> dict[str, float]:
    return {
        "seconds": round(done.timings["prompt_ms"] / 1e3, 4),
        "first_token_seconds": round(done.first_token_seconds, 4),
        "tokens": done.timings["prompt_n"],
    }


def writing_of(case: Case, streams: Sequence[Completion]) -> dict[str, Any]:
    """Step times while all streams write, as quantiles; `depth` is the mean cache length then."""
    last = max(streams, key=lambda stream: stream.token_times[0])
    begin, end = last.token_times[0], min(stream.token_times[-1] for stream in streams)
    times = np.array([at for at in last.token_times if at <= end + 1e-3])
    steps = np.diff(times)
    written = [
        np.searchsorted(stream.token_times, [begin, end], side="right") for stream in streams
    ]
    extra = float(np.mean([counts.mean() for counts in written]))
    return {
        "steps": len(steps),
        "step_ms": [round(float(value) * 1e3, 3) for value in np.quantile(steps, QUANTILES)],
        "tokens_per_second": round(
            sum(int(counts[1] - counts[0]) for counts in written) / (end - begin), 3
        ),
        "depth": round(max(case.depth, SHORT_PROMPT) + extra),
        "server_tokens_per_second": [
            round(stream.timings["predicted_per_second"], 3) for stream in streams
        ],
    }


def summary(case: Case, rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Tokens per second, typical and calm; for decoding in total over all streams."""
    writing = [r["decode"] for r in rounds]
    result: dict[str, Any] = {
        "prefill": rates(
            [p["tokens"] / p["seconds"] for r in rounds for p in r["prefill"]],
            [p["tokens"] / p["seconds"] for r in rounds for p in r["prefill"] if is_calm(p)],
        )
        if case.prompt
        else None,
        "decode": rates(
            [case.streams * 1e3 / median(w["step_ms"]) for w in writing],
            [case.streams * 1e3 / w["step_ms"][TENTH] for w in writing if is_calm(w)],
        ),
    }  # fmt: skip
    result["decode"]["depth"] = round(float(np.mean([w["depth"] for w in writing])))
    deep = [r["prefill_to_depth"] for r in rounds if "prefill_to_depth" in r]
    if deep:
        result["prefill_to_depth"] = rates(
            [p["tokens"] / p["seconds"] for p in deep],
            [p["tokens"] / p["seconds"] for p in deep if is_calm(p)],
        )
    return result


def is_calm(figures: dict[str, Any]) -> bool:
    return lost(figures) <= LOST_AT_MOST


def rates(typical: Sequence[float], calm: Sequence[float]) -> dict[str, Any]:
    """Medians. `noise` is the mean deviation of single figures from the calm one, relative; None
    where there is one only."""
    middle = median(calm) if calm else None
    noise = None
    if middle is not None and len(calm) > 1:
        noise = round(float(np.mean([abs(rate / middle - 1) for rate in calm])), 4)
    return {
        "typical": round(median(typical), 3),
        "calm": None if middle is None else round(middle, 3),
        "noise": noise,
        "calm_each": [round(rate, 3) for rate in calm],
    }


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {"cases": {}}


def rounds_of(results: dict[str, Any], case: Case) -> int:
    return len(results["cases"].get(case.name, {}).get("rounds", ()))


def save(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    lines = [f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in results["cases"].items()]
    head = json.dumps({key: value for key, value in results.items() if key != "cases"})
    partial.write_text(f'{head[:-1]},\n"cases": {{\n' + ",\n".join(lines) + "\n}}\n")
    partial.replace(path)


def add(results: dict[str, Any], case: Case, models: Path, round_: dict[str, Any]) -> None:
    entry = results["cases"].setdefault(case.name, {"rounds": []})
    model = MODELS[case.model]
    rounds = [*entry.pop("rounds"), round_]
    results["sampling"] = round_.pop("sampling")
    entry.update(
        {
            "model": case.model,
            "shape": model.shape_name,
            "quantization": model.quantization,
            "parameters": model.make().parameters,
            "file_bytes": model.path(models).stat().st_size,
            "depth": case.depth,
            "streams": case.streams,
            "prompt": case.prompt,
            "settings": case.settings.to_json(),
            **summary(case, rounds),
            "rounds": rounds,
        }
    )


def shown(rate: float | None) -> str:
    return "      –" if rate is None else f"{rate:7.2f}"


def table_line(name: str, entry: dict[str, Any]) -> str:
    prefill, decode, last = entry["prefill"], entry["decode"], entry["rounds"][-1]
    noise = "" if decode["noise"] is None else f" ±{decode['noise']:.0%}"
    read = f"{shown(prefill['calm'])} ({prefill['typical']:7.2f})" if prefill else " " * 17
    return (
        f"{name:42} read {read}  "
        f"write {shown(decode['calm'])} ({decode['typical']:7.2f}){noise}  "
        f"stolen {last['decode']['stolen']:.0%} others {last['decode']['others']:.0%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True, help="folder of the model files")
    parser.add_argument("--set", choices=SETS, default="test")
    parser.add_argument("--rounds", type=int, default=1, help="of each case, in the end")
    parser.add_argument("--only", nargs="*", default=[""], help="parts of case names")
    parser.add_argument("--lock", type=Path, help="file to lock while measuring")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    output = options.output or RESULTS / f"speed_truth_{options.set}.json"
    options.models.mkdir(parents=True, exist_ok=True)
    turn = Turn(options.lock)
    cases = [case for case in SETS[options.set] if any(part in case.name for part in options.only)]
    for wanted in range(1, options.rounds + 1):
        for case in cases:
            if rounds_of(load(output), case) >= wanted:
                continue
            path = MODELS[case.model].write(options.models)
            turn.take()
            rates = rates_now(case, path)
            round_ = asyncio.run(measure(case, path)) | {"rates": rates}
            turn.offer(after_seconds=TURN_SECONDS)
            results = load(output)
            results.setdefault("machine", describe())
            add(results, case, options.models, round_)
            save(output, results)
            print(table_line(case.name, results["cases"][case.name]), flush=True)


if __name__ == "__main__":
    main()
