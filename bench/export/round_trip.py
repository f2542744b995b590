"""Plan → flags → llama-server → what it reports of itself. results/round_trip.md is its table.

    python -m bench.native         # once
    python -m bench.export.round_trip     # a minute

Each plan's exported command line starts a natively built llama-server, with nothing added but its
log's verbosity, and `--rpc` where the plan has GPUs. Its log, `/props`, `/slots` and `/v1/models`
are compared with the plan. Then one router gets all plans as presets, starts some of them, and
their reports are compared in the same way.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.export.reported import (
    cache_devices,
    devices_of_layers,
    experts_on_host,
    reported,
    wanted,
)

from bench.export.cases import CASES, Case, deployment
from bench.native import tool
from moestro.export import llama_server, llama_server_ini
from moestro.export.deployment import Deployment
from moestro.export.flags import PROGRAM, RELEASE, flags, host_expert_blocks
from moestro.model import read_model
from moestro.planning.expert_cache import expert_cache
from moestro.planning.placement import HOST, place
from moestro.units import MIB

TALKATIVE = ("--log-verbosity", "5", "--log-colors", "off")
FOREIGN_PAGE, OWN_PAGE = "http://example.org", "http://localhost:3000"
_START_SECONDS = 60.0
_ABSENT_SECONDS = 5.0
NOTHING = "nothing: llama-server's own defaults come to the same in these plans"
_RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Outcome:
    """`wants` and `reports` by the setting's name; what was not to be seen is not in `reports`."""

    case: Case
    way: str
    wants: dict[str, Any]
    reports: dict[str, Any]

    @property
    def differing(self) -> list[str]:
        return [name for name in self.wants if self.wants[name] != self.reports.get(name)]


def expected(case: Case, plan: Deployment) -> dict[str, Any]:
    """What the server has to report: `wanted`, and the placement."""
    spec = read_model(Path(plan.model_path))
    found = wanted(
        plan.settings,
        name=plan.name,
        model=plan.model_path,
        accelerated=case.gpus > 0,
        trained_context=spec.context_length or 0,
    )
    placement = place(spec, plan.settings, (1,) * case.gpus)
    found["blocks"] = [*placement.blocks, placement.output]
    found["experts_on_host"] = sorted(host_expert_blocks(plan))
    found["foreign_page"], found["own_page"] = None, OWN_PAGE
    if case.gpus:
        on_host = plan.settings.cache_on_host or not plan.settings.gpu_layers
        found["caches"] = "CPU" if on_host else "as the blocks"
    if plan.settings.expert_cache_bytes:  # it holds whole experts, so a little less than planned
        cache = expert_cache(spec, plan.settings, placement, (1,) * case.gpus, with_mtp=False)
        assert cache is not None
        held_bytes = sum(size for device, size in cache.sizes.items() if device != HOST)
        found["expert_cache_mib"] = f"{held_bytes / MIB:.2f}"
    return found


def observed(case: Case, plan: Deployment, log: str, address: str) -> dict[str, Any]:
    found = reported(log, _ask(address, "/props"), _ask(address, "/slots"))
    (model,) = _ask(address, "/v1/models")["data"]
    found["listed_as"] = model["id"]
    found["foreign_page"] = _allowed(address, FOREIGN_PAGE)
    found["own_page"] = _allowed(address, OWN_PAGE)
    found["blocks"] = [_device(name) for name in devices_of_layers(log)][: _blocks(log)]
    found["experts_on_host"] = sorted(experts_on_host(log))
    if case.gpus:
        caches = {_device(name) for name in cache_devices(log)}
        found["caches"] = "CPU" if caches == {"CPU"} else "as the blocks"
    return found


def _blocks(log: str) -> int:
    """Blocks and the head of one model; a second loading of it repeats them."""
    match = re.search(r"print_info: n_layer_all\s+= (\d+)", log)
    return int(match[1]) + 1 if match else 0


def _device(name: str) -> str:
    return name.replace("RPC", "GPU").partition("[")[0]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], log: Path, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=cwd, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def rpc_devices(count: int, folder: Path) -> Iterator[list[str]]:
    """Flags that give a server so many devices."""
    with contextlib.ExitStack() as stack:
        ports = [free_port() for _ in range(count)]
        for port in ports:
            command = [str(tool("ggml-rpc-server")), "-H", "127.0.0.1", "-p", str(port), "-t", "1"]
            stack.enter_context(running(command, folder / f"rpc-{port}.log", folder))
        for port in ports:
            _until(lambda port=port: _listens(port), f"the RPC server on {port}")  # type: ignore[misc]
        yield ["--rpc", ",".join(f"127.0.0.1:{port}" for port in ports)] if ports else []


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _until(
    done: Callable[[], bool],
    what: str,
    process: subprocess.Popen[bytes] | None = None,
    seconds: float = _START_SECONDS,
) -> None:
    end = time.monotonic() + seconds
    while not done():
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"{what} ended with {process.returncode}")
        if time.monotonic() > end:
            raise RuntimeError(f"{what} was not ready in time")
        time.sleep(0.05)


def _ask(address: str, path: str) -> Any:
    with urllib.request.urlopen(f"{address}{path}", timeout=30) as answer:
        return json.load(answer)


def _allowed(address: str, origin: str) -> str | None:
    """Whose pages a browser would let read the answer to a request from a page of `origin`."""
    request = urllib.request.Request(f"{address}/v1/models", headers={"Origin": origin})
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: str | None = answer.headers["Access-Control-Allow-Origin"]
        return found


def _ready(address: str) -> bool:
    try:
        return bool(_ask(address, "/health")["status"] == "ok")
    except (OSError, urllib.error.URLError):
        return False


def by_command(case: Case, folder: Path, without: str | None = None) -> Outcome:
    """The exported script itself is run; `llama-server` is a wrapper that adds to its flags.

    `without` names a flag that is left out, to see whether anything shows it."""
    plan = deployment(case, folder, free_port())
    exported = llama_server.export(plan)
    lines = exported.files[0].text.splitlines(keepends=True)
    kept = [line for line in lines if without is None or line.split()[:1] != [without]]
    (folder / exported.files[0].name).write_text("".join(kept), encoding="utf-8")
    log = folder / "server.log"
    with rpc_devices(case.gpus, folder) as rpc:
        wrapper = folder / PROGRAM
        first = shlex.join([str(tool("llama-server")), *rpc, *TALKATIVE])
        wrapper.write_text(f'#!/bin/sh\nexec {first} "$@"\n', encoding="utf-8")
        wrapper.chmod(0o755)
        command = ["env", f"PATH={folder}:/usr/bin:/bin", *exported.use[0].split()]
        with running(command, log, folder) as process:
            address = f"http://127.0.0.1:{plan.port}"
            seconds = _START_SECONDS if without is None else _ABSENT_SECONDS
            _until(lambda: _ready(address), f"{case.name}: {log}", process, seconds)
            text = log.read_text(errors="replace")
            reports = observed(case, plan, text, address)
    return _outcome(case, "command", plan, reports)


def shown_by(flag: str, cases: Sequence[Case]) -> str:
    """What tells that `flag` is not there: what differs in the first plan where something does."""
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            plan = deployment(case, Path(folder), 0)
            if flag not in dict(flags(plan)):
                continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = by_command(case, Path(folder), without=flag).differing
            except (RuntimeError, OSError, LookupError):
                found = ["there is no server of this model at its address"]
        if found:
            return ", ".join(found)
    return NOTHING


def by_router(cases: list[Case], folder: Path) -> list[Outcome]:
    """One file of presets for every case without a GPU; each is loaded in its turn."""
    plans, presets = {}, []
    for number, case in enumerate(cases):
        own = folder / str(number)
        own.mkdir()
        plan = deployment(case, own, free_port())
        name = f"{plan.name} {number}" if case.file_name is None else plan.name
        plan = Deployment(plan.plan, name, plan.host, plan.port)
        plan = replace(plan, name=llama_server_ini.section(plan))
        exported = llama_server_ini.export(plan)
        text = exported.files[0].text
        if number:  # the first is loaded without being asked for
            text = text.replace("load-on-startup = true", "load-on-startup = false")
        presets.append(f"{text}log-file = {own / 'server.log'}\nlog-verbosity = 5\n")
        plans[case.name] = (case, plan, own / "server.log")
    (folder / llama_server_ini.FILE).write_text("\n".join(presets), encoding="utf-8")
    port = free_port()
    command = [
        str(tool("llama-server")), "--models-preset", llama_server_ini.FILE, "--host", "127.0.0.1",
        "--port", str(port), "--models-max", "1",
    ]  # fmt: skip
    outcomes, address = [], f"http://127.0.0.1:{port}"
    with running(command, folder / "router.log", folder) as process:
        _until(lambda: _ready(address), "the router", process)
        for case, plan, log in plans.values():
            child = _load(address, plan.name)
            outcomes.append(
                _outcome(
                    case,
                    "router",
                    plan,
                    observed(case, plan, log.read_text(errors="replace"), child),
                )
            )
    return outcomes


def _load(router: str, name: str) -> str:
    """Has the model loaded, unless it is, and returns the address of its own server."""

    def status() -> dict[str, Any]:
        (entry,) = [one for one in _ask(router, "/models")["data"] if one["id"] == name]
        found: dict[str, Any] = entry["status"]
        return found

    if status()["value"] == "unloaded":
        body = json.dumps({"model": name}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{router}/models/load", body, headers)
        urllib.request.urlopen(request, timeout=60).close()
    _until(lambda: status()["value"] == "loaded", name)
    arguments = status()["args"]
    return f"http://127.0.0.1:{arguments[arguments.index('--port') + 1]}"


def _outcome(case: Case, way: str, plan: Deployment, reports: dict[str, Any]) -> Outcome:
    wants = {**expected(case, plan), "listed_as": plan.name}
    return Outcome(case, way, wants, reports)


def table(outcomes: list[Outcome]) -> str:
    """A line for each setting, and one for each plan."""
    seen: Counter[str] = Counter()
    equal: Counter[str] = Counter()
    values: dict[str, set[str]] = {}
    for outcome in outcomes:
        for name, value in outcome.wants.items():
            seen[name] += name in outcome.reports
            equal[name] += outcome.reports.get(name) == value
            values.setdefault(name, set()).add(str(value))
    lines = [
        "# Round trip",
        "",
        f"llama.cpp {RELEASE}, natively built for the processor; GPUs are devices over RPC.",
        "`python -m bench.export.round_trip`",
        "",
        "| reported | plans with it | seen | equal | values |",
        "|---|---|---|---|---|",
    ]
    for name, tried in values.items():
        plans = sum(name in outcome.wants for outcome in outcomes)
        lines.append(f"| {name} | {plans} | {seen[name]} | {equal[name]} | {len(tried)} |")
    lines += ["", "| plan | model | GPUs | started by | differing |", "|---|---|---|---|---|"]
    for outcome in outcomes:
        case = outcome.case
        what = ", ".join(outcome.differing) or "nothing"
        lines.append(f"| {case.name} | {case.model} | {case.gpus} | {outcome.way} | {what} |")
    return "\n".join(lines) + "\n"


def absence_table(shown: dict[str, str]) -> str:
    """What would tell that a flag was forgotten."""
    lines = ["", "| without the flag | this differs from the plan |", "|---|---|"]
    lines += [f"| {flag} | {how} |" for flag, how in shown.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", help="names of plans; nothing is kept then")
    parser.add_argument(
        "--absent",
        action="store_true",
        help="leave out each flag in its turn, too, and keep the result (a few minutes more)",
    )
    options = parser.parse_args()
    cases = [case for case in CASES if not options.only or case.name in options.only]
    outcomes = []
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            outcomes.append(by_command(case, Path(folder)))
        _show(outcomes[-1])
    on_cpu = [case for case in cases if not case.gpus]
    if on_cpu:
        with tempfile.TemporaryDirectory() as folder:
            for outcome in by_router(on_cpu, Path(folder)):
                outcomes.append(outcome)
                _show(outcome)
    text = table(outcomes)
    if options.absent:
        text += absence_table({flag: shown_by(flag, CASES) for flag in _every_flag()})
    if options.absent and options.only is None:
        _RESULTS.mkdir(exist_ok=True)
        (_RESULTS / "round_trip.md").write_text(text, encoding="utf-8")
    print(text)
    sys.exit(any(outcome.differing for outcome in outcomes))


def _every_flag() -> list[str]:
    found: dict[str, None] = {}
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            found.update(dict.fromkeys(dict(flags(deployment(case, Path(folder), 0)))))
    return list(found)


def _show(outcome: Outcome) -> None:
    found = {name: (outcome.wants[name], outcome.reports.get(name)) for name in outcome.differing}
    print(f"{outcome.case.name} ({outcome.way}): {found or 'equal'}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
