"""One self-contained HTML page: the frontier of size, speed and context, and the memory."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moestro.cli.page import drawn, framed, save
from moestro.cli.show_plan import anatomy_line, machine_line, plan_name
from moestro.planning import Plan
from moestro.planning.frontier import TYPES, Point
from moestro.planning.placement import HOST
from moestro.units import GIB, format_bytes

_PARTS = (
    ("weights", "#3b6fb6"),
    ("cache", "#e08a3c"),
    ("compute", "#5b9f68"),
    ("other", "#9a8fb5"),
)
_SIZES = ("#2166ac", "#4393c3", "#92c5de", "#f4a582", "#d6604d", "#b2182b")
"""One for each of the frontier's `TYPES`."""

_OWN = "#111111"


def write_chart(plan: Plan, points: Sequence[Point], path: Path) -> None:
    """Writes the page; it opens without a network.

    Raises:
        MoestroError: it cannot be written.
    """
    save(page_of(plan, points), path, what="chart", option="--chart")


def page_of(plan: Plan, points: Sequence[Point]) -> str:
    """The whole page."""
    name = html.escape(plan_name(plan))
    streams = plan.settings.parallel
    room = f"Room for {streams} streams of each context" if streams > 1 else "One stream"
    parts = [
        f"<h1>{name}</h1>",
        f"<p>{html.escape(anatomy_line(plan.model))}</p>",
        f"<p>{html.escape(machine_line(plan.hardware))}</p>",
        "<h2>Decode speed against context, by size of the file</h2>",
        f"<p>{room}; speed of one behind a prompt of {plan.workload.prompt_tokens:,} tokens. "
        "Points that do not fit are left out. Sizes other than this file's are computed from its "
        "shape.</p>",
        drawn(_speed_figure(plan, points), first=True),
        "<h2>Memory against context, by size of the file</h2>",
        "<p>Points that do not fit are drawn too.</p>",
        drawn(_size_figure(plan, points), first=False),
        "<h2>Memory of the plan, by device</h2>",
        drawn(_memory_figure(plan), first=False),
    ]
    return framed(f"{plan_name(plan)}: plan", parts)


def _speed_figure(plan: Plan, points: Sequence[Point]) -> Any:
    figure = _figure("tokens/s, one stream")
    for label, of_label in _by_label(points):
        speeds = [(p, p.trial.speed_alone) for p in of_label if p.trial.fits]
        known = [(point, speed.decode.expected) for point, speed in speeds if speed is not None]
        if known:
            _line(figure, label, [point for point, _ in known], [rate for _, rate in known])
    _mark(figure, plan)
    return figure


def _size_figure(plan: Plan, points: Sequence[Point]) -> Any:
    figure = _figure("GiB, all devices")
    for label, of_label in _by_label(points):
        totals = [sum(d.total_bytes for d in p.trial.ledger.devices) / GIB for p in of_label]
        _line(figure, label, of_label, totals)
    capacity = _all_memory_bytes(plan)
    if capacity is not None:
        figure.add_hline(
            y=capacity / GIB,
            line_dash="dot",
            annotation_text=f"all memory {format_bytes(capacity)}",
        )
    _mark(figure, plan)
    return figure


def _all_memory_bytes(plan: Plan) -> int | None:
    """Of host and GPUs together, the same memory counted once; None where part of it is unknown."""
    if plan.hardware.memory.unified:
        return plan.ledger.device(HOST).capacity_bytes
    sizes = [device.capacity_bytes for device in plan.ledger.devices]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def _memory_figure(plan: Plan) -> Any:
    from plotly import graph_objects

    devices = plan.ledger.devices
    names = [device.device for device in devices]
    figure = graph_objects.Figure(layout=_layout("GiB"))
    for part, colour in _PARTS:
        sizes = [getattr(device, f"{part}_bytes") / GIB for device in devices]
        figure.add_bar(y=names, x=sizes, name=part, orientation="h", marker_color=colour)
    left = [max((device.capacity_bytes or 0) - device.total_bytes, 0) for device in devices]
    if plan.hardware.memory.unified:
        shared = (_all_memory_bytes(plan) or 0) - sum(device.total_bytes for device in devices)
        left = [min(size, max(shared, 0)) for size in left]
    free = [size / GIB for size in left]
    figure.add_bar(y=names, x=free, name="free", orientation="h", marker_color="#e6e6e6")
    figure.update_layout(barmode="stack", height=150 + 60 * len(names), xaxis_title="GiB")
    figure.update_layout(legend={"traceorder": "normal", "y": -0.5})
    figure.update_yaxes(title=None, rangemode=None)
    return figure


def _figure(y_title: str) -> Any:
    from plotly import graph_objects

    figure = graph_objects.Figure(layout=_layout(y_title))
    figure.update_xaxes(type="log", title="context, tokens per stream")
    return figure


def _layout(y_title: str) -> dict[str, Any]:
    return {
        "template": "plotly_white",
        "height": 420,
        "margin": {"l": 60, "r": 20, "t": 20, "b": 50},
        "legend": {"orientation": "h", "y": -0.2},
        "yaxis": {"title": y_title, "rangemode": "tozero"},
    }


def _line(figure: Any, label: str, points: Sequence[Point], values: Sequence[float]) -> None:
    own = points[0].actual
    figure.add_scatter(
        x=[point.context for point in points],
        y=list(values),
        mode="lines+markers",
        name=f"{label}, {format_bytes(points[0].tensor_bytes)}",
        line={"color": _colour(points[0]), "width": 3 if own else 1.5},
        text=[_hover(point) for point in points],
        hovertemplate="%{x:,} tokens: %{y:.3s}<br>%{text}<extra></extra>",
    )


def _mark(figure: Any, plan: Plan) -> None:
    context = plan.settings.context
    figure.add_vline(x=context, line_dash="dot")
    # On a logarithmic axis a line is placed by its value, its annotation by the value's logarithm.
    figure.add_annotation(
        x=math.log10(context), y=1, yref="paper", yanchor="bottom", text="the plan", showarrow=False
    )
    contexts = [1 << power for power in range(11, 22)]
    figure.update_xaxes(tickvals=contexts, ticktext=[f"{context // 1024}k" for context in contexts])


def _hover(point: Point) -> str:
    settings = point.trial.settings
    words = [f"{point.bits_per_weight:.1f} bits per weight"]
    if settings.gpu_layers:
        words.append(f"{settings.cpu_expert_layers} expert layers on the CPU")
    words += [
        f"{device.device} {format_bytes(device.total_bytes)}"
        for device in point.trial.ledger.devices
    ]
    return "<br>".join(words)


def _colour(point: Point) -> str:
    if point.actual:
        return _OWN
    return _SIZES[TYPES.index(point.label)]


def _by_label(points: Sequence[Point]) -> list[tuple[str, list[Point]]]:
    labels = dict.fromkeys(point.label for point in points)
    return [(label, [point for point in points if point.label == label]) for label in labels]
