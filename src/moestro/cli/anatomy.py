"""Draws a model's anatomy for people: a page that reads in ten seconds, also 80 columns wide."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from moestro.cli.inspect import layer_kinds
from moestro.findings import Finding, Severity
from moestro.model import ModelSpec, Role
from moestro.units import format_bytes, format_count

BAR_WIDTH = 24
_WORDS = {
    Role.ROUTED_EXPERTS: "routed experts",
    Role.SHARED_EXPERTS: "shared experts",
    Role.ROUTER: "router",
    Role.ATTENTION: "attention",
    Role.RECURRENT: "recurrent",
    Role.DENSE_FFN: "dense FFN",
    Role.EMBEDDING: "embedding",
    Role.OUTPUT: "output head",
    Role.MTP: "MTP",
    Role.OTHER: "other",
}
_STYLES = {Severity.FAIL: "bold red", Severity.WARN: "yellow", Severity.INFO: "cyan"}


def render(spec: ModelSpec, console: Console) -> None:
    """Prints the anatomy of `spec`."""
    console.print(_title(spec))
    console.print(_facts(spec))
    console.print()
    console.print(_bytes_table(spec))
    for finding in spec.findings:
        console.print()
        console.print(finding_table(finding))


def finding_table(finding: Finding) -> Table:
    """A finding: how bad and what, the numbers, what to do."""
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column()
    severity = Text(f"{finding.severity}:", _STYLES.get(finding.severity, ""))
    table.add_row(severity, Text(finding.title))
    if finding.evidence:
        table.add_row("", Text(finding.evidence))
    if finding.fix:
        table.add_row(Text("hint:", "dim"), Text(finding.fix))
    return table


def _title(spec: ModelSpec) -> Text:
    words = [spec.architecture]
    if spec.quantization:
        words.append(spec.quantization)
    if len(spec.files) > 1:
        words.append(f"{len(spec.files)} files")
    return Text.assemble((spec.name or "unnamed", "bold"), "  ", (" · ".join(words), "dim"))


def _facts(spec: ModelSpec) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _fact_rows(spec):
        table.add_row(name, escape(value))
    return table


def _fact_rows(spec: ModelSpec) -> list[tuple[str, str]]:
    rows = [
        (
            "parameters",
            f"{format_count(spec.parameters)} in all, {format_count(spec.parameters_active)} read "
            "per token",
        ),
        (
            "weights",
            f"{format_bytes(spec.tensor_bytes)}, {format_bytes(spec.bytes_read_per_token)} read "
            "per token",
        ),
    ]
    if spec.experts:
        experts = spec.experts
        shared = f", {experts.shared} shared" if experts.shared else ""
        rows.append(
            (
                "experts",
                f"{experts.count} in {experts.layers} of {spec.layer_count} layers, "
                f"{experts.used} used per token{shared}; {experts.gating} gating",
            )
        )
    rows.append(("layers", _layers(spec)))
    rows.append(("context", _context(spec)))
    rows.append(("cache (f16)", _cache(spec)))
    if spec.mtp_layers:
        blocks = "layer" if spec.mtp_layers == 1 else "layers"
        rows.append(("MTP", f"{spec.mtp_layers} {blocks} of multi-token prediction"))
    if spec.projector:
        where = spec.projector.location or "inside the model's own files"
        rows.append(("projector", f"{where} ({format_bytes(spec.projector.size_bytes)})"))
    if spec.files and spec.files[0].location.startswith(("http://", "https://")):
        rows.append(("transferred", f"{format_bytes(spec.transferred_bytes)} (header only)"))
    return rows


def _layers(spec: ModelSpec) -> str:
    kinds = layer_kinds(spec)
    if not kinds or list(kinds) == ["attention"]:
        return str(spec.layer_count)
    return f"{spec.layer_count}: " + ", ".join(f"{count} {kind}" for kind, count in kinds.items())


def _context(spec: ModelSpec) -> str:
    if spec.context_length is None:
        return "?"
    text = f"{spec.context_length:,} tokens"
    if spec.rope_scaling and spec.rope_scaling.original_context:
        text += f" ({spec.rope_scaling.kind} from {spec.rope_scaling.original_context:,})"
    return text


def _cache(spec: ModelSpec) -> str:
    if spec.cache_bytes_per_token is None:
        return "?"
    text = f"{format_bytes(spec.cache_bytes_per_token)} per token"
    if spec.window_bytes_per_sequence:
        text += f" + {format_bytes(spec.window_bytes_per_sequence)} of windows"
    if spec.recurrent_bytes_per_sequence:
        text += f" + {format_bytes(spec.recurrent_bytes_per_sequence)} of state"
    at = min(8192, spec.context_length or 8192)
    return f"{text} = {format_bytes(spec.cache_bytes(at))} at {at:,}"


def _bytes_table(spec: ModelSpec) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    total = spec.tensor_bytes or 1
    for role, size in sorted(spec.bytes_by_role.items(), key=lambda item: -item[1]):
        if size:
            share = size / total
            bar = "█" * max(round(share * BAR_WIDTH), 0) or "▏"
            table.add_row(_WORDS[role], format_bytes(size), _percent(share), Text(bar, "cyan"))
    types = ", ".join(f"{name} {_percent(size / total)}" for name, size in _main_types(spec))
    table.add_row("types", "", "", types)
    return table


def _main_types(spec: ModelSpec) -> list[tuple[str, int]]:
    return list(spec.bytes_by_type.items())[:4]


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.0005 else "<0.1%"
