"""How fast the engine really reads and writes, case by case: what forecasts are judged by.

    python -m bench.planner.speed_truth --models DIR --set test [--rounds 1] [--only PART …]
        [--lock FILE] [--quiet SHARE] [--output FILE]

Each case starts the engine as `moestro up` does and talks to its HTTP server with the server's own
sampling (temperature 0.8, top-k 40, top-p 0.95, min-p 0.05), tokens streamed. Prompts are random
token ids. The file is filled up until each case has `--rounds` rounds; every case has its first
before any has its second, so that rounds lie apart.

Reading: one stream alone, `prompt` tokens, the server's own clock. Writing: the times between the
tokens of the stream that began last, while all streams write; every stream gets one token a step.

Shared machines disturb: other guests take the processors away for parts of a second, which
lengthens single steps many times over. So two figures are kept of everything. `typical` is the
median of all rounds. `calm` is the tenth percentile of the durations: the machine while nobody
disturbs it. What share of the processors was taken away (`stolen`) or used by others (`others`) is
kept beside them. With `--quiet 0.06` a round begins when a probe gets 94 % of the processors, is
thrown away if it lost more while it wrote, and is tried again later.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import hashlib
import json
import os
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench.planner.cases import MODELS, SETS, Case
from bench.planner.completions import Completion, complete
from bench.planner.machine import describe
from moestro.engine.llama_cpp.process import LlamaCppEngine
from moestro.engine.protocol import EngineRequest

RESULTS = Path(__file__).parent / "results"
START_SECONDS = 300.0
SHORT_PROMPT = 16
WARM_UP_ANSWER = 8
PREFILL_REPEATS = 3
TURN_SECONDS = 150.0
QUANTILES = np.linspace(0, 1, 21)
CALM = 0.1
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


PROBE_SECONDS = 1.0
PAUSE_SECONDS = 4.0
_PROBE_DATA = bytes(4 << 20)


def share_to_be_had() -> float:
    """Of all processors, for a second: hashing lets go of the interpreter's lock."""
    processors = os.cpu_count() or 1
    begun, used = time.perf_counter(), time.process_time()

    def work() -> None:
        while time.perf_counter() - begun < PROBE_SECONDS:
            hashlib.sha256(_PROBE_DATA).digest()

    threads = [threading.Thread(target=work) for _ in range(processors)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.process_time() - used) / (processors * (time.perf_counter() - begun))


def disturbed(figures: dict[str, Any], limit: float) -> bool:
    return bool(figures["stolen"] + figures["others"] > limit)


async def measure(case: Case, path: Path) -> dict[str, Any]:
    """One round of one case."""
    vocabulary = MODELS[case.model].make().vocab
    engine = LlamaCppEngine(EngineRequest(path, case.model, case.settings))
    try:
        await engine.start(START_SECONDS)
        assert engine.pid is not None
        warm = prompt_of(SHORT_PROMPT, vocabulary)
        sampling = (await complete(engine, warm, WARM_UP_ANSWER)).settings
        reading = []
        for _ in range(PREFILL_REPEATS if case.prompt else 0):
            disturbance = Disturbance(engine.pid)
            done = await complete(engine, prompt_of(case.prompt, vocabulary), 1)
            reading.append(reading_of(done) | disturbance.shares())
        disturbance = Disturbance(engine.pid)
        prompts = [
            prompt_of(max(case.depth, SHORT_PROMPT), vocabulary) for _ in range(case.streams)
        ]
        streams = await asyncio.gather(
            *(complete(engine, prompt, case.lead + case.answer) for prompt in prompts)
        )
        writing = writing_of(case, streams) | disturbance.shares()
    finally:
        await engine.stop()
    round_: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "started_seconds": round(engine.started_seconds or 0.0, 2),
        "prefill": reading,
        "decode": writing,
        "sampling": {key: sampling[key] for key in SAMPLERS if key in sampling},
    }
    if case.depth and case.streams == 1:
        round_["prefill_to_depth"] = reading_of(streams[0])
    return round_


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
    """Tokens per second, typical and calm; for decoding in total over all streams.

    `noise` is the spread of the calm figures of single rounds around the pooled one, relative:
    their mean absolute deviation. None with a single round.
    """
    read = [[p["seconds"] / p["tokens"] for p in r["prefill"]] for r in rounds]
    step = [[ms / 1e3 / case.streams for ms in r["decode"]["step_ms"]] for r in rounds]
    result = {"prefill": rates(read) if case.prompt else None, "decode": rates(step)}
    result["decode"]["mean_per_round"] = [r["decode"]["tokens_per_second"] for r in rounds]
    result["decode"]["depth"] = round(float(np.mean([r["decode"]["depth"] for r in rounds])))
    deep = [
        r["prefill_to_depth"]["seconds"] / r["prefill_to_depth"]["tokens"]
        for r in rounds
        if "prefill_to_depth" in r
    ]
    if deep:
        result["prefill_to_depth"] = rates([[value] for value in deep])
    return result


def rates(durations: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Rates from the seconds per token of several rounds."""
    pooled = np.concatenate([np.asarray(values) for values in durations])
    calm = float(np.quantile(pooled, CALM))
    single = np.array([np.quantile(values, CALM) for values in durations])
    noise = float(np.mean(np.abs(single / calm - 1))) if len(single) > 1 else None
    return {
        "typical": round(1 / float(np.median(pooled)), 3),
        "calm": round(1 / calm, 3),
        "noise": None if noise is None else round(noise, 4),
        "calm_per_round": [round(1 / float(value), 3) for value in single],
        "typical_per_round": [round(1 / float(np.median(values)), 3) for values in durations],
    }


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {"cases": {}}  # type: ignore[no-any-return]


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


def table_line(name: str, entry: dict[str, Any]) -> str:
    prefill, decode, last = entry["prefill"], entry["decode"], entry["rounds"][-1]
    noise = "" if decode["noise"] is None else f" ±{decode['noise']:.0%}"
    read = f"{prefill['calm']:7.1f} ({prefill['typical']:7.1f})" if prefill else " " * 17
    return (
        f"{name:42} read {read}  "
        f"write {decode['calm']:7.2f} ({decode['typical']:7.2f}){noise}  "
        f"stolen {last['decode']['stolen']:.0%} others {last['decode']['others']:.0%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True, help="folder of the model files")
    parser.add_argument("--set", choices=SETS, default="test")
    parser.add_argument("--rounds", type=int, default=1, help="of each case, in the end")
    parser.add_argument("--only", nargs="*", default=[""], help="parts of case names")
    parser.add_argument("--lock", type=Path, help="file to lock while measuring")
    parser.add_argument("--quiet", type=float, help="throw away rounds that lost more than this")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    output = options.output or RESULTS / f"speed_truth_{options.set}.json"
    options.models.mkdir(parents=True, exist_ok=True)
    turn = Turn(options.lock)
    cases = [case for case in SETS[options.set] if any(part in case.name for part in options.only)]
    for wanted in range(1, options.rounds + 1):
        behind = [case for case in cases if rounds_of(load(output), case) < wanted]
        while behind:
            case = behind.pop(0)
            path = MODELS[case.model].write(options.models)
            turn.take()
            if options.quiet is not None and share_to_be_had() < 1 - options.quiet:
                turn.offer()
                behind.insert(0, case)
                time.sleep(PAUSE_SECONDS)
                continue
            round_ = asyncio.run(measure(case, path))
            turn.offer(after_seconds=TURN_SECONDS if options.quiet is None else 0.0)
            if options.quiet is not None and disturbed(round_["decode"], options.quiet):
                print(f"{case.name}: disturbed, again later", flush=True)
                behind.append(case)
                continue
            results = load(output)
            results.setdefault("machine", describe())
            add(results, case, options.models, round_)
            save(output, results)
            print(table_line(case.name, results["cases"][case.name]), flush=True)


if __name__ == "__main__":
    main()
