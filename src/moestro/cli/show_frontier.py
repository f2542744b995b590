"""Draws speed against waiting: the frontier of settings and numbers of users."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from moestro.cli.bench_figures import span
from moestro.tune.frontier import Frontier, FrontierPoint, Tolerance

BEST = "*"
_HEADS = ("users", "settings", "tokens/s", "req/min", "TTFT", "TPOT", "answer", "")
_LABEL_WIDTH = 22


def show_frontier(frontier: Frontier, console: Console) -> None:
    """Reads well without colour and 80 columns wide."""
    if frontier.points:
        console.print(_table(frontier.points))
        console.print(Text(_legend(frontier.tolerance)))
    else:
        console.print(Text("Speed against waiting could not be measured.", style="bold yellow"))
    for one in frontier.left_out:
        console.print(Text(f"Not in it: {one.label}, {one.sentence}", style="dim"))


def _table(points: tuple[FrontierPoint, ...]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in _HEADS:
        left = name in ("settings", "")
        table.add_column(
            name,
            justify="left" if left else "right",
            no_wrap=True,
            max_width=_LABEL_WIDTH if name == "settings" else None,
            overflow="ellipsis",
        )
    for point in points:
        table.add_row(*_cells(point), style="" if point.best else "dim")
    return table


def _cells(point: FrontierPoint) -> tuple[Text, ...]:
    said = (
        str(point.streams),
        point.label,
        _amount(point.tokens_per_second),
        _amount(60 * point.requests_per_second),
        span(point.ttft_seconds),
        span(point.time_per_token_seconds),
        span(point.latency_seconds),
        BEST if point.best else "",
    )
    return tuple(map(Text, said))


def _legend(tolerance: Tolerance) -> str:
    return (
        "Means to the first token (TTFT) and per token after it (TPOT); 90 % of whole answers are "
        f"there within “answer”. Choose among the rows with {BEST}: each other one is beaten in "
        "tokens/s or answer by a row that is no worse in the other (differences below "
        f"{tolerance.tokens_per_second:.0%} and {tolerance.latency:.0%} are noise)."
    )


def _amount(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"
