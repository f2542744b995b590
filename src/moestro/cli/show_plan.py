"""Draws a plan for people: does it fit, how fast, what was chosen and why, what else would work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePath

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from moestro.cli.anatomy import finding_table
from moestro.findings import Finding, Severity, worst_first
from moestro.hardware import Inventory
from moestro.model import ModelSpec
from moestro.model.splits import model_name
from moestro.planning import Alternative, Estimate, Plan, Settings
from moestro.planning.settings import EMBEDDED
from moestro.units import format_bytes, format_count, format_rate
from moestro.words import plain

_SILENT = {
    "tensor_split": None,
    "expert_cache_bytes": 0,
    "unified": False,
    "flash_attention": "auto",
    "context_checkpoints": 0,
    "engine": EMBEDDED,
    "threads_batch": None,
    "batch": None,
    "repack": True,
    "load_mode": "auto",
    "mtp_p_min": 0.0,
    "ngram": "off",
}
"""Settings that are shown only when they differ from this."""

_GPU_ONLY = frozenset({"gpu_layers", "cpu_expert_layers"})


def show_plan(plan: Plan, console: Console, *, brief: bool = False) -> None:
    """Prints `plan`; `brief` leaves out the alternatives."""
    console.print(_head(plan))
    console.print()
    console.print(_memory_table(plan))
    console.print()
    console.print(_settings_table(plan))
    if plan.mtp and not brief:
        console.print()
        console.print(_mtp_table(plan))
        note = "expected gain in decode; acceptance is assumed until it is measured"
        console.print(Text(note, style="dim"))
    if plan.alternatives and not brief:
        console.print()
        console.print(_alternatives_table(plan))
    for finding in worst_first((*plan.model.findings, *plan.findings)):
        if finding.severity in (Severity.FAIL, Severity.WARN, Severity.UNKNOWN) or not brief:
            console.print()
            console.print(finding_table(finding))


def show_comparison(plans: list[tuple[str, Plan]], console: Console) -> None:
    """One line for each plan."""
    table = _table()
    table.add_column("", overflow="fold")
    for name in ("fits", "weights", "total", "context", "decode", "prefill"):
        table.add_column(name, justify="right")
    for name, plan in plans:
        devices = plan.ledger.devices
        speed = plan.speed
        table.add_row(
            escape(name),
            _fits(plan),
            format_bytes(sum(device.weights_bytes for device in devices)),
            format_bytes(sum(device.total_bytes for device in devices)),
            f"{plan.settings.context:,}",
            _compared_rate(plan, speed.decode) if speed else "?",
            _compared_rate(plan, speed.prefill) if speed else "?",
        )
    console.print(table)
    console.print(Text("decode and prefill in tokens/s, one stream", style="dim"))
    for finding in _shared_failures(plans):
        console.print()
        console.print(finding_table(finding))


def _shared_failures(plans: list[tuple[str, Plan]]) -> Iterator[Finding]:
    """What fails in any plan, each kind once, with the names of the plans beside its numbers."""
    found: dict[str, list[tuple[str, Finding]]] = {}
    for name, plan in plans:
        for finding in (*plan.model.findings, *plan.findings):
            if finding.severity is Severity.FAIL:
                found.setdefault(finding.code, []).append((name, finding))
    for failures in found.values():
        first = failures[0][1]
        names: dict[str, list[str]] = {}
        for name, finding in failures:
            names.setdefault(finding.evidence or "", []).append(name)
        lines = [": ".join(filter(None, (", ".join(n), words))) for words, n in names.items()]
        fixes = {finding.fix for _, finding in failures}
        fix = first.fix if len(fixes) == 1 else "Plan one of them alone: that says what would fit."
        yield replace(first, evidence="\n".join(lines), fix=fix)


def _compared_rate(plan: Plan, rate: Estimate) -> str:
    """What does not fit has no speed to compare."""
    return "–" if plan.fits is False else _number(rate.expected)


def machine_line(machine: Inventory) -> str:
    """A machine in a few words."""
    cores = f"{machine.cpu.usable_cores} core" + ("" if machine.cpu.usable_cores == 1 else "s")
    gpus = " + ".join(_gpu_words(machine)) or "no GPU"
    memory = f"{format_bytes(machine.memory.usable_total_bytes)} RAM"
    processor = machine.cpu.model or machine.cpu.architecture
    return plain(f"{gpus}; {processor}, {cores}, {memory}")


def anatomy_line(model: ModelSpec) -> str:
    """A model in a few words."""
    words = [plain(model.architecture), f"{format_count(model.parameters)} parameters"]
    if model.experts is not None:
        words.append(f"{format_count(model.parameters_active)} active")
        words.append(f"{model.experts.used} of {model.experts.count} experts")
    if model.mtp_layers:
        words.append("MTP")
    return ", ".join(words)


def plan_name(plan: Plan) -> str:
    """What the model of a plan is called: its file's name without its ending, or its folder's."""
    if plan.model.format != "gguf" and plan.model.name is not None:
        return plain(plan.model.name)
    return plain(model_name(PurePath(plan.model.files[0].location)))


def _gpu_words(machine: Inventory) -> Iterator[str]:
    seen = [(gpu.name, gpu.memory_bytes) for gpu in machine.gpus]
    for name, memory_bytes in dict.fromkeys(seen):
        count = seen.count((name, memory_bytes))
        times = f"{count} × " if count > 1 else ""
        yield f"{times}{name} {format_bytes(memory_bytes)}" if memory_bytes else f"{times}{name}"


def _head(plan: Plan) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column()
    grid.add_row("model", escape(plan_name(plan)))
    grid.add_row("anatomy", escape(anatomy_line(plan.model)))
    where = "" if plan.hardware.source == "this machine" else f" ({plan.hardware.source})"
    grid.add_row("machine", escape(machine_line(plan.hardware) + where))
    grid.add_row("fits", _fits(plan))
    for name, line in _speed_lines(plan):
        grid.add_row(name, line)
    return grid


def _fits(plan: Plan) -> Text:
    if plan.fits is None:
        return Text("unknown", style="bold yellow")
    return Text("yes", style="bold green") if plan.fits else Text("no", style="bold red")


def _speed_lines(plan: Plan) -> Iterator[tuple[str, str]]:
    speed = plan.speed
    if speed is None:
        yield "speed", f"unknown: {_why_unknown(plan)}"
        return
    ceiling = speed.decode_ceiling
    at_most = f", ceiling {_number(ceiling)}" if ceiling is not None else ""
    drafts = ", before what drafts gain" if plan.settings.mtp_depth else ""
    if plan.fits is False:
        yield "speed", "if it fitted:"
    yield (
        "decode",
        f"{_range(speed.decode)} tokens/s, one stream{drafts}{at_most} ({speed.decode.source})",
    )
    yield "prefill", f"{_range(speed.prefill)} tokens/s ({speed.prefill.source})"
    workload = plan.workload
    seconds = plan.request_seconds
    if seconds is not None:
        yield (
            "request",
            f"{workload.prompt_tokens:,} tokens in, {workload.output_tokens:,} out: "
            f"{seconds:.1f} s",
        )
    if speed.streams > 1:
        total = _range(speed.decode_total)
        yield "together", f"{total} tokens/s from {speed.streams} streams at once"


def _why_unknown(plan: Plan) -> str:
    """What a forecast would need, by `Plan.speed_missing`."""
    machine = plan.hardware
    kinds = [kind for kind in plan.speed_missing if kind not in ("bandwidth", "link")]
    if machine.source == "this machine" and (kinds or "bandwidth" in plan.speed_missing):
        return "measure this machine once with moestro hardware --measure"
    if "bandwidth" in plan.speed_missing:
        without = [] if machine.memory.bandwidth else ["memory"]
        without += [gpu.name for gpu in machine.gpus if not (gpu.bandwidth or gpu.shared)]
        return escape(f"the bandwidth of {' and '.join(dict.fromkeys(without))} is not known")
    if "link" in plan.speed_missing:
        return "the link between host and GPU is not known"
    return f"nothing is known of how fast {', '.join(kinds)} would be"


def _memory_table(plan: Plan) -> Table:
    table = _table()
    table.add_column("memory", no_wrap=True)
    for name in ("weights", "cache", "compute", "other", "total", "of"):
        table.add_column(name, justify="right", no_wrap=True)
    for device in plan.ledger.devices:
        over = device.capacity_bytes is not None and device.total_bytes > device.capacity_bytes
        table.add_row(
            device.device,
            format_bytes(device.weights_bytes),
            format_bytes(device.cache_bytes),
            format_bytes(device.compute_bytes),
            format_bytes(device.other_bytes),
            Text(format_bytes(device.total_bytes), style="bold red" if over else "bold"),
            format_bytes(device.capacity_bytes),
        )
    return table


def _settings_table(plan: Plan) -> Table:
    table = _table()
    table.add_column("setting", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("because")
    table.add_column("source", no_wrap=True)
    values = plan.settings.to_json()
    for reason in plan.reasons:
        name, value = reason.setting, values[reason.setting]
        if reason.source != "user":
            if name in _SILENT and value == _SILENT[name]:
                continue
            if name in _GPU_ONLY and not plan.hardware.gpus:
                continue
            if name == "cpu_expert_layers" and plan.model.experts is None:
                continue
        table.add_row(
            setting_words(name), setting_value(name, value), reason.because, reason.source
        )
    return table


def setting_words(name: str) -> str:
    return {"cache_type_k": "cache type"}.get(name, name.removesuffix("_bytes").replace("_", " "))


def setting_value(name: str, value: object) -> str:
    """A setting as people read it."""
    if value is None:
        return "auto"
    if isinstance(value, bool):
        return "on" if value else "off"
    if name.endswith("_bytes") and isinstance(value, int):
        return format_bytes(value)
    if isinstance(value, list | tuple):
        return ":".join(f"{share:g}" for share in value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _mtp_table(plan: Plan) -> Table:
    table = _table()
    table.add_column("MTP depth", justify="right", no_wrap=True)
    acceptances = sorted({gain.acceptance for gain in plan.mtp})
    for acceptance in acceptances:
        table.add_column(f"{acceptance:.0%} accepted", justify="right", no_wrap=True)
    for depth in sorted({gain.depth for gain in plan.mtp}):
        gains = {gain.acceptance: gain.speedup for gain in plan.mtp if gain.depth == depth}
        table.add_row(str(depth), *(f"{gains[a]:.2f}×" if a in gains else "" for a in acceptances))
    return table


def _alternatives_table(plan: Plan) -> Table:
    table = _table()
    table.add_column("what else would work")
    table.add_column("decode", justify="right", no_wrap=True)
    table.add_column("memory", justify="right", no_wrap=True)
    table.add_column("changes")
    for other in plan.alternatives:
        table.add_row(other.change, _decode_against(plan, other), *_memory_against(plan, other))
    return table


def _decode_against(plan: Plan, other: Alternative) -> str:
    mine = plan.speed.decode if plan.speed else None
    theirs = other.trial.speed_alone.decode if other.trial.speed_alone else None
    if not other.trial.fits:
        return "does not fit"
    if mine is None or theirs is None:
        return "?"
    depth = other.trial.settings.mtp_depth
    gains = [gain.speedup for gain in plan.mtp if gain.depth == depth]
    if gains and depth != plan.settings.mtp_depth:
        return f"{_number(theirs.expected)} × {min(gains):.2f}–{max(gains):.2f}"
    change = theirs.expected / mine.expected - 1
    return f"{_number(theirs.expected)} ({change:+.0%})"


def _memory_against(plan: Plan, other: Alternative) -> tuple[str, str]:
    before = sum(device.total_bytes for device in plan.ledger.devices)
    after = other.trial.total_bytes
    sign = "+" if after >= before else "−"
    return f"{sign}{format_bytes(abs(after - before))}", _moved(plan.settings, other.trial.settings)


def _moved(mine: Settings, theirs: Settings) -> str:
    """Settings of placement that an alternative has to move."""
    words = []
    experts = theirs.cpu_expert_layers - mine.cpu_expert_layers
    if experts:
        direction = "more" if experts > 0 else "fewer"
        plural = "" if abs(experts) == 1 else "s"
        words.append(f"{abs(experts)} {direction} expert layer{plural} on the CPU")
    layers = (theirs.gpu_layers or 0) - (mine.gpu_layers or 0)
    if layers:
        plural = "" if abs(layers) == 1 else "s"
        words.append(f"{abs(layers)} {'more' if layers > 0 else 'fewer'} layer{plural} on the GPU")
    if theirs.ubatch != mine.ubatch:
        words.append(f"ubatch {theirs.ubatch}")
    if theirs.expert_cache_bytes != mine.expert_cache_bytes:
        size = theirs.expert_cache_bytes
        words.append(f"expert cache {format_bytes(size)}" if size else "no expert cache")
    if theirs.cache_type_k != mine.cache_type_k:
        words.append(f"cache {theirs.cache_type_k}")
    return ", ".join(words)


def _range(estimate: Estimate) -> str:
    low, high = _number(estimate.low), _number(estimate.high)
    return f"{_number(estimate.expected)} ({low}–{high})"


def _number(value: float) -> str:
    return format_rate(value).removesuffix(" tokens/s")


def _table() -> Table:
    return Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")


__all__ = [
    "anatomy_line",
    "machine_line",
    "plan_name",
    "setting_value",
    "setting_words",
    "show_comparison",
    "show_plan",
]
