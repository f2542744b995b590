"""What stands between a client and an engine: how much later is the first word, and what is lost?

    python -m bench.serve.cost [--rounds 8] [--gap-ms 20 100] [--real-rounds 12] [--output FILE]

*First word*: 64 streams that arrive staggered, of an engine that computes nothing (`stub`), asked
directly, through moestro's gateway, through a plain Starlette and httpx proxy, through
llama-server's own router and through LiteLLM's proxy. *Throughput*: the demo model on its real
engine, asked at its own port and through the gateway that started it, through LiteLLM before the
same engine; and a llama-server at its own port and through the router that started it.

All of them take turns, in an order that turns round each time, and are compared with the direct one
of their own round. A round in which other programs took the processors runs again, for as long as
`--patience-seconds` last.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.planner.machine import describe
from bench.serve import fronts
from bench.serve.fronts import Front
from bench.serve.streams import Load, Seen
from bench.tune import quiet
from moestro.engine.llama_server.engine import setting_flags
from moestro.export.llama_server_ini import entry
from moestro.load.summary import spread_of
from moestro.model import read_model
from moestro.planning import Settings
from moestro.routing.interval import bootstrap_mean
from moestro.tune.statistics import Noise, Pair, estimate

RESULTS = Path(__file__).parent / "results" / "cost.json"

DIRECT = "direct"
MOESTRO = "moestro"
PLAIN = "Starlette + httpx"
ROUTER = "llama-server's router"
LITELLM = "LiteLLM"
ROUTED = "its engine, direct"
"""The engine that the router started, asked at its own port."""

STREAMS = 64
EVENTS = 64
LIMIT = 0.08
"""Of the processors' time, taken by other programs, in a round that counts."""

SHORTEST_SECONDS = 5.0
LENGTHS = 1.5
"""A round counts requests for so many lengths of an answer, and for `SHORTEST_SECONDS` at least."""

REAL_STREAMS = 4
REAL_EACH = 4
REAL_TOKENS = 192
REAL_CONTEXT = 1024

Round = dict[str, Seen]


class Patience:
    """How long the whole bench may wait for others to leave the processors alone, and run again
    what they disturbed."""

    def __init__(self, seconds: float) -> None:
        self.left = seconds
        self.waited = 0.0

    def spend(self, seconds: float) -> None:
        self.left -= seconds
        self.waited += seconds

    def wait(self) -> None:
        if self.left <= 0:
            return
        self.spend(quiet.wait(self.left))


def measure(front: Front, load: Load, stub_pid: int | None = None) -> Seen:
    watched = {"front": list(front.pids)}
    if stub_pid is not None:
        watched["engine"] = [stub_pid]
    load = Load(**{**asdict(load), "url": front.url, "key": front.key, "watched": watched})
    command = [sys.executable, "-m", "bench.serve.streams", json.dumps(asdict(load))]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return Seen(**json.loads(done.stdout))


class Rounds:
    """Every front once a round. `disturbed` of the kept ones count although others took too much of
    the processors: too many were thrown away."""

    def __init__(self, fronts_: Mapping[str, Front], engines: Mapping[str, int]) -> None:
        self.kept: list[Round] = []
        self.thrown_away = self.disturbed = 0
        self._fronts = fronts_
        self._engines = engines

    def run(self, load: Load, rounds: int, patience: Patience) -> None:
        while len(self.kept) < rounds:
            patience.wait()
            number, began = len(self.kept) + self.thrown_away, time.monotonic()
            names = list(self._fronts)
            seeded = Load(**{**asdict(load), "seed": number + 1})
            seen: Round = {}
            for name in names if number % 2 else reversed(names):
                seen[name] = measure(self._fronts[name], seeded, self._engines.get(name))
            most = max(one.taken for one in seen.values())
            if most > LIMIT and patience.left > 0:
                self.thrown_away += 1
                patience.spend(time.monotonic() - began)
                continue
            self.disturbed += most > LIMIT
            self.kept.append({name: seen[name] for name in names})
            print(f"round {len(self.kept)} of {rounds}", file=sys.stderr, flush=True)

    def of(self, name: str) -> list[Seen]:
        return [one[name] for one in self.kept]

    def to_json(self) -> dict[str, Any]:
        return {
            "rounds": len(self.kept),
            "thrown_away": self.thrown_away,
            "disturbed": self.disturbed,
        }


def first_word(gap_ms: float, options: argparse.Namespace, patience: Patience) -> dict[str, Any]:
    """How much later the first word is than from the engine itself, at one pace of its events."""
    with ExitStack() as stack:
        pid, url = stack.enter_context(fronts.stub(EVENTS, gap_ms))
        known: dict[str, Front] = {DIRECT: Front(url)}
        known[MOESTRO] = stack.enter_context(fronts.moestro_before(url))
        known[PLAIN] = stack.enter_context(fronts.plain_proxy(url))
        server = fronts.llama_server()
        if server is not None and server.program is not None and "router" not in options.without:
            known[ROUTER] = stack.enter_context(
                fronts.router_before_stub(server.program, EVENTS, gap_ms)
            )
        if "litellm" not in options.without:
            known[LITELLM] = stack.enter_context(fronts.litellm(url))
        length = EVENTS * gap_ms / 1000
        load = Load(
            url="",
            key="",
            body={"model": "default", "stream": True, "max_tokens": EVENTS},
            streams=STREAMS,
            spread_seconds=length,
            warm_seconds=length + 0.5,
            seconds=max(SHORTEST_SECONDS, LENGTHS * length),
            seed=0,
            least_words=EVENTS,
        )
        rounds = Rounds(known, {name: _engine_of(front, pid) for name, front in known.items()})
        rounds.run(load, options.rounds, patience)
    rows = {name: _first_word_row(rounds, name) for name in known}
    return {"gap_ms": gap_ms, "streams": STREAMS, "events": EVENTS, **rounds.to_json(),
            "rows": rows}  # fmt: skip


def _engine_of(front: Front, stub_pid: int) -> int:
    """The router has a stub of its own."""
    return stub_pid if front.engine is None else fronts.child_of(front.pids[0])


def _first_word_row(rounds: Rounds, name: str) -> dict[str, Any]:
    ours = [spread_of(seen.first) for seen in rounds.of(name)]
    direct = [spread_of(seen.first) for seen in rounds.of(DIRECT)]
    pairs = [(a, b) for a, b in zip(ours, direct, strict=True) if a is not None and b is not None]
    errors = [error for seen in rounds.of(name) for error in seen.errors]
    row: dict[str, Any] = {
        "requests": sum(len(seen.first) for seen in rounds.of(name)),
        "errors": len(errors),
        "errors_first": errors[:2],
        "sent_again": sum(seen.closed for seen in rounds.of(name)),
        "ended_per_second": median(seen.ended / seen.seconds for seen in rounds.of(name)),
        **_processors(rounds.of(name)),
    }
    if not pairs:
        return row
    added = [1000 * (a.p50 - b.p50) for a, b in pairs]
    mean = bootstrap_mean(added, [1] * len(added))
    return row | {
        "ttft_ms": median(1000 * a.p50 for a, _ in pairs),
        "ttft_p99_ms": median(1000 * a.p99 for a, _ in pairs),
        "added_ms": median(added),
        "added_ms_of_rounds": added,
        "added_ms_mean": None if mean is None else mean.to_json(),
        "added_p99_ms": median(1000 * (a.p99 - b.p99) for a, b in pairs),
    }


def _processors(seen: Sequence[Seen]) -> dict[str, Any]:
    """Parts of a core that the front, the engine and the load used, and of the whole machine."""

    def part(name: str) -> float:
        return median(one.cpu.get(name, 0.0) / one.seconds for one in seen)

    per_stream = [one.cpu["front"] / one.ended for one in seen if one.ended]
    return {
        "front_cpu_ms_per_stream": 1000 * median(per_stream) if per_stream else None,
        "front_cores": part("front"),
        "engine_cores": part("engine"),
        "load_cores": median(one.own_cpu / one.seconds for one in seen),
        "machine_busy": median(one.busy for one in seen),
        "taken_by_others": median(one.taken for one in seen),
        "stolen": median(one.stolen for one in seen),
    }


def throughput(options: argparse.Namespace, patience: Patience) -> dict[str, Any]:
    """Tokens per second of the demo model, for several streams together."""
    with ExitStack() as stack:
        up = stack.enter_context(fronts.moestro_up("demo", options.real_streams, REAL_CONTEXT))
        assert up.engine is not None
        assert up.told is not None
        key = up.told["key"]
        known = {DIRECT: Front(up.engine, key), MOESTRO: up}
        bases = {MOESTRO: DIRECT}
        own = dict.fromkeys((DIRECT, MOESTRO, LITELLM), up.told["pids"][1])
        if "litellm" not in options.without:
            known[LITELLM] = stack.enter_context(fronts.litellm(up.engine, key))
            bases[LITELLM] = DIRECT
        server = fronts.llama_server()
        if server is not None and server.program is not None and "router" not in options.without:
            settings = Settings.from_json(up.told["settings"])
            flags = setting_flags(server, read_model(Path(up.told["path"])), settings)
            lines = [f"{key} = {value}" for key, value in map(entry, flags)]
            preset = "\n".join(["[default]", f"model = {up.told['path']}", *lines, ""])
            router = stack.enter_context(fronts.router(server.program, preset))
            assert router.engine is not None
            known |= {ROUTED: Front(router.engine), ROUTER: router}
            bases[ROUTER] = ROUTED
            inner = fronts.child_of(router.pids[0])
            own |= {ROUTED: inner, ROUTER: inner}
        load = Load(
            url="",
            key="",
            body={
                "model": "default",
                "stream": True,
                "max_tokens": REAL_TOKENS,
                "temperature": 0,
                "ignore_eos": True,
            },
            streams=options.real_streams,
            spread_seconds=0,
            warm_seconds=0,
            seconds=0,
            seed=0,
            each=REAL_EACH,
        )
        warm = Rounds(known, own)
        warm.run(load, 1, Patience(0))
        rounds = Rounds(known, own)
        rounds.run(load, options.real_rounds, patience)
    return {
        "streams": options.real_streams,
        "tokens_per_answer": REAL_TOKENS,
        "answers_per_round": REAL_EACH * options.real_streams,
        "settings": up.told["settings"],
        **rounds.to_json(),
        "rows": _throughput_rows(rounds, known, bases),
    }


def _throughput_rows(
    rounds: Rounds, known: Mapping[str, Front], bases: Mapping[str, str]
) -> dict[str, Any]:
    noise = Noise()
    logs = {
        name: [
            Pair(math.log(_rate(a) / _rate(b)), 1.0)
            for a, b in zip(rounds.of(name), rounds.of(base), strict=True)
            if a.ended and b.ended
        ]
        for name, base in bases.items()
    }
    for name, pairs in logs.items():
        noise.learn(name, pairs)
    rows: dict[str, Any] = {}
    for name in known:
        seen = rounds.of(name)
        ratio = estimate(logs.get(name, ()), noise)
        spreads = [one for one in (spread_of(each.first) for each in seen) if one is not None]
        rows[name] = {
            "tokens_per_second": median(_rate(one) for one in seen),
            "ttft_ms": median(1000 * one.p50 for one in spreads) if spreads else None,
            "errors": sum(len(one.errors) for one in seen),
            "sent_again": sum(one.closed for one in seen),
            "errors_first": [error for one in seen for error in one.errors][:2],
            "against": bases.get(name),
            "ratio": None if ratio is None else ratio.interval.to_json(),
            **_processors(seen),
        }
    return rows


def _rate(seen: Seen) -> float:
    """Every answer is as long as it may be: the engine is told to ignore its end."""
    return seen.ended * REAL_TOKENS / seen.seconds


def versions() -> dict[str, str]:
    names = ("moestro", "uvicorn", "starlette", "aiohttp", "httpx2", "uvloop", "httptools")
    found = {name: version(name) for name in (*names, "xllamacpp")}
    server = fronts.llama_server()
    if server is not None:
        found["llama-server"] = server.version
    return found | {"litellm": fronts.LITELLM}


def show(result: Mapping[str, Any]) -> None:
    console = Console(highlight=False, width=118)
    for part in result["first_word"]:
        title = (
            f"First word, {part['streams']} streams of {part['events']} events, "
            f"one each {part['gap_ms']:g} ms; {part['rounds']} rounds, "
            f"{part['disturbed']} of them disturbed"
        )
        names = ("median ms", "added ms", "95 % of mean", "p99 ms", "added", "CPU ms/stream",
                 "its cores", "machine busy", "errors")  # fmt: skip
        table = _table(title, names)
        for name, row in part["rows"].items():
            mean = row.get("added_ms_mean")
            table.add_row(
                name,
                _number(row.get("ttft_ms")),
                _number(row.get("added_ms")),
                "" if mean is None else f"{_number(mean['low'])} to {_number(mean['high'])}",
                _number(row.get("ttft_p99_ms")),
                _number(row.get("added_p99_ms")),
                _number(row["front_cpu_ms_per_stream"]),
                _number(row["front_cores"]),
                f"{row['machine_busy']:.0%}",
                str(row["errors"]),
            )
        console.print(table)
    part = result["throughput"]
    if part is None:
        return
    title = (
        f"Demo model, {part['streams']} streams; {part['rounds']} rounds, "
        f"{part['disturbed']} of them disturbed"
    )
    columns = ("tokens/s", "ratio", "95 %", "against", "TTFT ms", "CPU ms/stream", "errors")
    table = _table(title, columns)
    for name, row in part["rows"].items():
        ratio = row["ratio"]
        table.add_row(
            name,
            f"{row['tokens_per_second']:.0f}",
            "" if ratio is None else f"{ratio['expected']:.3f}",
            "" if ratio is None else f"{ratio['low']:.3f} to {ratio['high']:.3f}",
            row["against"] or "",
            _number(row["ttft_ms"]),
            _number(row["front_cpu_ms_per_stream"]),
            str(row["errors"]),
        )
    console.print(table)


def _table(title: str, names: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=8, help="of the stub engine, at each pace")
    parser.add_argument("--gap-ms", type=float, nargs="*", default=[20.0, 100.0])
    parser.add_argument("--real-rounds", type=int, default=12)
    parser.add_argument("--real-streams", type=int, default=REAL_STREAMS)
    parser.add_argument("--without", nargs="*", default=[], choices=["litellm", "router"])
    parser.add_argument("--patience-seconds", type=float, default=600.0)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # takes the children along
    patience = Patience(options.patience_seconds)
    began, load_before = time.time(), os.getloadavg()[0]
    result: dict[str, Any] = {
        "machine": describe(),
        "command": " ".join(["python -m bench.serve.cost", *sys.argv[1:]]),
        "versions": versions(),
        "load_average_before": load_before,
        "limit": LIMIT,
        "first_word": [],
        "throughput": None,
    }

    def keep() -> None:
        times = {"seconds": time.time() - began, "waited_seconds": patience.waited}
        options.output.write_text(json.dumps(result | times, indent=1) + "\n")

    for gap in options.gap_ms:
        result["first_word"].append(first_word(gap, options, patience))
        keep()
    if options.real_rounds:
        result["throughput"] = throughput(options, patience)
        keep()
    show(result)


if __name__ == "__main__":
    main()
