"""Pictures of loads: how latencies are spread, how they change, what concurrency does to them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from moestro.cli.bench_figures import pace, span
from moestro.cli.benching import Run
from moestro.cli.verify_charts import CANDIDATE, REFERENCE, THIRD, Picture, empty, known, line
from moestro.load import RequestRecord, Spread

_BINS = 40
_MOST_POINTS = 4000
_SHOWN_SHARE = 0.995
"""The longest few are left out of a distribution, whose bulk would be one bar beside them."""


def run_pictures(run: Run) -> Iterator[Picture]:
    whole = [record for record in run.result.records if record.error is None]
    first = [record.ttft for record in whole if record.ttft is not None]
    if run.summary.ttft is not None:
        yield _distribution("Time to first token", "requests", first, run.summary.ttft, REFERENCE)
    if run.summary.inter_token is not None:
        gaps = [gap for record in whole for gap in record.gaps]
        title = "Time between pieces"
        yield _distribution(title, "gaps", gaps, run.summary.inter_token, CANDIDATE)
    if whole:
        yield _over_time(run, whole)


def sweep_pictures(runs: Sequence[Run]) -> Iterator[Picture]:
    if len(runs) > 1 and all(run.load.rate is None for run in runs):
        yield _throughput(runs)
        yield _latency_by_users(runs)


def _distribution(
    title: str, noun: str, values: Sequence[float], spread: Spread, colour: str
) -> Picture:
    """A histogram with equal bars, from 0 or from the least value, as suits the spread."""
    ordered = sorted(values)
    top = ordered[math.ceil((len(ordered) - 1) * _SHOWN_SHARE)]
    low = 0.0 if ordered[0] < top / 2 else ordered[0]
    width = (top - low) / _BINS or max(top, 1e-6) / _BINS
    counts = [0] * (_BINS + 1)
    left_out = 0
    for value in ordered:
        place = int((value - low) / width)
        if place <= _BINS:
            counts[place] += 1
        else:
            left_out += 1
    while counts and not counts[-1]:
        counts.pop()
    figure = empty("milliseconds", noun, height=280, legend=False)
    figure.add_bar(
        x=[known((low + (number + 0.5) * width) * 1000) for number in range(len(counts))],
        y=counts,
        width=known(width * 1000),
        marker={"color": colour, "line": {"width": 0.5, "color": "white"}},
        hovertemplate=f"about %{{x:.3g}} ms: %{{y:,}} {noun}<extra></extra>",
    )
    # Of the same height their words would overlap where the percentiles lie close together.
    for name, value, rise in (("p50", spread.p50, 0), ("p90", spread.p90, 14),
                              ("p99", spread.p99, 28)):  # fmt: skip
        if value <= low + width * len(counts):
            x = value * 1000
            figure.add_vline(x=x, line_dash="dot", line_color="#444")
            figure.add_annotation(
                x=x, y=1, yref="paper", yanchor="bottom", yshift=rise, text=name, showarrow=False
            )
    figure.update_layout(margin={"t": 50}, bargap=0)
    figure.update_yaxes(rangemode="tozero")
    more = f" The longest {left_out:,} lie to the right of it." if left_out else ""
    return Picture(
        title,
        "How often each time occurred; one high bar on the left is what everyone wants.",
        f"Half within {span(spread.p50)}, 99 % within {span(spread.p99)}, the longest "
        f"{span(spread.most)}, of {spread.count:,} {noun}.{more}",
        figure,
    )


def _over_time(run: Run, records: Sequence[RequestRecord]) -> Picture:
    step = math.ceil(len(records) / _MOST_POINTS)
    seen = sorted(records[::step], key=lambda record: record.due)
    figure = empty("seconds since the start", "seconds", height=320)
    for name, values, colour, symbol in (
        ("whole answer", [record.latency_from_due for record in seen], THIRD, "circle"),
        ("first token", [record.ttft_from_due for record in seen], REFERENCE, "diamond"),
    ):
        figure.add_scatter(
            x=[known(record.due) for record in seen],
            y=[known(value) for value in values],
            name=name,
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 7 if len(seen) < 300 else 4},
            hovertemplate=f"{name}: %{{y:.3g}} s<extra></extra>",
        )
    figure.update_yaxes(rangemode="tozero")
    figure.update_xaxes(rangemode="tozero")
    half = len(seen) // 2
    says = ""
    if half >= 3:
        early, late = (_middle(part) for part in (seen[:half], seen[half:]))
        says = f"Median of the first half {span(early)}, of the second {span(late)}."
    return Picture(
        f"Latency over time, {pace(run.load)}",
        "Each request twice, where it was due. Marks that climb say that more is asked than can be "
        "answered.",
        says,
        figure,
    )


def _middle(records: Sequence[RequestRecord]) -> float:
    return sorted(record.latency_from_due for record in records)[len(records) // 2]


def _throughput(runs: Sequence[Run]) -> Picture:
    users = [float(run.load.users or 1) for run in runs]
    rates = [run.summary.output_tokens_per_second for run in runs]
    each = [rate / count if rate is not None else None
            for rate, count in zip(rates, users, strict=True)]  # fmt: skip
    figure = empty("users at once", "tokens/s", height=320)
    line(figure, "all together", users, rates, CANDIDATE, form=".3g")
    line(figure, "each user", users, each, REFERENCE, form=".3g", dash="dash", symbol="diamond")
    _users_axis(figure, users)
    best = max(runs, key=lambda run: run.summary.output_tokens_per_second or 0.0)
    return Picture(
        "Throughput against concurrency",
        "Where the upper line turns flat, more users only wait longer.",
        f"Most at {pace(best.load)}: {best.summary.output_tokens_per_second or 0:.3g} tokens/s.",
        figure,
    )


def _latency_by_users(runs: Sequence[Run]) -> Picture:
    users = [float(run.load.users or 1) for run in runs]
    figure = empty("users at once", "seconds", height=320)
    for name, spreads, colour, dash, symbol in (
        ("whole answer, p50", [run.summary.latency for run in runs], THIRD, "solid", "circle"),
        ("first token, p50", [run.summary.ttft for run in runs], REFERENCE, "dash", "diamond"),
    ):
        values = [spread.p50 if spread else None for spread in spreads]
        line(figure, name, users, values, colour, form=".3g", dash=dash, symbol=symbol)
    _users_axis(figure, users)
    first, last = runs[0].summary.latency, runs[-1].summary.latency
    says = ""
    if first is not None and last is not None:
        says = (
            f"The median answer takes {span(first.p50)} with {pace(runs[0].load)} and "
            f"{span(last.p50)} with {pace(runs[-1].load)}."
        )
    return Picture(
        "Latency against concurrency", "What each user pays for the others.", says, figure
    )


def _users_axis(figure: Any, users: Sequence[float]) -> None:
    figure.update_xaxes(tickvals=sorted(set(users)), rangemode="tozero")
    figure.update_yaxes(rangemode="tozero")
    if max(users) / min(users) > 16:
        ticks = sorted(set(users))
        figure.update_xaxes(
            type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks], rangemode="normal"
        )
