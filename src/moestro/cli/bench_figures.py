"""The figures of a load as words, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Iterator

from moestro.cli.benching import Bench, Run
from moestro.load import Load, Spread, Summary
from moestro.units import format_rate
from moestro.words import shown

SPREAD_HEADS = ("", "mean", "p50", "p90", "p95", "p99")
SWEEP_HEADS = ("users", "done", "TTFT", "p99", "TPOT", "p99", "answer", "tokens/s")
SWEEP_LEGEND = (
    "Medians, and their 99th percentiles beside them: time to first token (TTFT), time per token "
    "after it (TPOT), whole answer."
)
_MOST_ERRORS = 5


def pace(load: Load) -> str:
    """`4 users at once`, `2 requests/s (poisson)`."""
    if load.rate is not None:
        return f"{load.rate:g} requests/s ({load.arrivals})"
    return "1 user" if load.users == 1 else f"{load.users} users at once"


def span(seconds: float | None) -> str:
    """`1.23 s`, `45.6 ms`; unknown is a question mark."""
    if seconds is None:
        return "?"
    if seconds >= 0.9995:
        return f"{seconds:.2f} s" if seconds < 99.995 else f"{seconds:.0f} s"
    value = seconds * 1000
    return f"{value:.0f} ms" if value >= 99.95 else f"{value:.3g} ms" if value else "0 ms"


def percent(share: float) -> str:
    return f"{share:.1%}"


def heading(bench: Bench) -> str:
    model = f"{shown(bench.model, 48)} at " if bench.model else ""
    return f"{model}{shown(bench.url, 80)}"


def what_was_sent(run: Run) -> str:
    """One line: how fast, how many, how long, how many failed."""
    summary = run.summary
    failed = f"{summary.errors:,} failed" if summary.errors else "none failed"
    count = summary.requests + summary.errors
    noun = "request" if count == 1 else "requests"
    return f"{pace(run.load)}, {count:,} {noun} in {span(summary.seconds)}, {failed}"


def spread_rows(summary: Summary) -> Iterator[tuple[str, ...]]:
    """One for each latency that is known, under `SPREAD_HEADS`."""
    named: list[tuple[str, Spread | None]] = [
        ("time to first token", summary.ttft),
        ("between pieces (ITL)", summary.inter_token),
        ("per token after it (TPOT)", summary.time_per_token),
        ("whole answer", summary.latency),
    ]
    if summary.late_seconds > 0.01:
        named += [
            ("first token, from due", summary.ttft_from_due),
            ("whole answer, from due", summary.latency_from_due),
        ]
    for name, spread in named:
        if spread is not None:
            values = (spread.mean, spread.p50, spread.p90, spread.p95, spread.p99)
            yield (name, *(span(value) for value in values))


def figure_rows(summary: Summary) -> Iterator[tuple[str, str]]:
    """Name and value of what is known beside the latencies."""
    if summary.output_tokens is not None:
        counted = " (pieces: it does not count)" if summary.counted_pieces else ""
        yield (
            "output",
            f"{format_rate(summary.output_tokens_per_second)}, "
            f"{summary.output_tokens:,} tokens{counted}",
        )
    if summary.prompt_tokens is not None:
        yield (
            "prompts",
            f"{format_rate(summary.prompt_tokens_per_second)}, {summary.prompt_tokens:,} tokens",
        )
    yield "requests", f"{summary.requests_per_second:.3g}/s"
    goodput = summary.goodput
    if goodput is not None:
        yield (
            "within the limits",
            f"{goodput.requests_per_second:.3g} requests/s, {percent(goodput.share)} of all",
        )
    if summary.cached_ratio is not None:
        yield "prompt tokens from a cache", percent(summary.cached_ratio)
    if summary.acceptance is not None:
        yield (
            "draft tokens accepted",
            f"{percent(summary.acceptance)} of {summary.drafted:,}",
        )
    if summary.acceptance_by_position is not None:
        shares = " ".join(percent(share) for share in summary.acceptance_by_position)
        yield "  by position", shares
    if summary.energy is not None:
        per_token = summary.joules_per_output_token
        each = f", {per_token:.3g} J per output token" if per_token is not None else ""
        yield "energy of this machine", f"{summary.energy.joules:,.0f} J{each}"


def sweep_heads(bench: Bench) -> tuple[str, ...]:
    return (*SWEEP_HEADS, "in SLO") if _has_goodput(bench) else SWEEP_HEADS


def sweep_rows(bench: Bench) -> Iterator[tuple[str, ...]]:
    """One for each load, under `sweep_heads`."""
    for run in bench.runs:
        summary = run.summary
        rate = summary.output_tokens_per_second
        cells = [
            str(run.load.users) if run.load.rate is None else f"{run.load.rate:g}/s",
            f"{summary.requests:,}" + (f" +{summary.errors}!" if summary.errors else ""),
            span(summary.ttft.p50 if summary.ttft else None),
            span(summary.ttft.p99 if summary.ttft else None),
            span(summary.time_per_token.p50 if summary.time_per_token else None),
            span(summary.time_per_token.p99 if summary.time_per_token else None),
            span(summary.latency.p50 if summary.latency else None),
            "?" if rate is None else f"{rate:,.1f}" if rate < 100 else f"{rate:,.0f}",
        ]
        if _has_goodput(bench):
            cells.append(percent(summary.goodput.share) if summary.goodput else "?")
        yield tuple(cells)


def error_lines(bench: Bench) -> Iterator[str]:
    """What went wrong, each once, the most frequent first."""
    counts: dict[str, int] = {}
    for run in bench.runs:
        for error, count in run.summary.error_counts:
            counts[error] = counts.get(error, 0) + count
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    for error, count in ranked[:_MOST_ERRORS]:
        yield f"{count:,} × {shown(error, 200)}"
    if len(ranked) > _MOST_ERRORS:
        yield f"and {len(ranked) - _MOST_ERRORS} other errors: see --json"


def notes(bench: Bench) -> Iterator[str]:
    """What a reader must know to read the figures."""
    if bench.interrupted:
        yield "Interrupted: these are the answers that were whole by then."
    if bench.lost is not None:
        yield f"The load ended early: {shown(bench.lost, 200)}"
    if any(run.summary.counted_pieces for run in bench.runs):
        yield (
            "The endpoint does not count its tokens; the pieces of its streams are counted, each "
            "of which may hold several."
        )
    late = max((run.summary.late_seconds for run in bench.runs), default=0.0)
    if late > 0.1:
        yield (
            f"This client was late by up to {span(late)}: it is the bottleneck, or its limit on "
            "open files (ulimit -n) is. The rows “from due” count that in."
        )


def _has_goodput(bench: Bench) -> bool:
    return any(run.summary.goodput is not None for run in bench.runs)
