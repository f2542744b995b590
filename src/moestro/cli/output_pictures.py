"""Pictures of what the two models answered: divergence, agreement, repetition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from moestro.cli.verify_charts import (
    CANDIDATE,
    REFERENCE,
    THIRD,
    Picture,
    empty,
    known,
    label,
    share_floor,
    word,
)
from moestro.cli.verify_figures import REJECT_GATE, nats, percent
from moestro.routing.paired import PairedRouting
from moestro.verify.divergence import Divergence
from moestro.verify.repetition import Repetition


def output_pictures(found: Divergence, routing: PairedRouting | None) -> Iterator[Picture]:
    if found.kld_max and sum(found.histogram[1]):
        yield _distribution(found)
    if found.by_domain:
        yield _divergence_by_domain(found)
        yield _shares_by_domain(found, routing)


def repetition_picture(found: Repetition) -> Picture:
    figure = empty("", "", height=210)
    kinds = ["repeated 4-grams", "ending in a loop"]
    for name, one, colour, pattern in (
        ("reference", found.reference, REFERENCE, "/"),
        ("this file", found.candidate, CANDIDATE, ""),
    ):
        values = [one.repeated, one.ending_in_loop]
        figure.add_bar(
            y=kinds,
            x=[known(value) for value in values],
            name=name,
            orientation="h",
            marker={"color": colour, "pattern": {"shape": pattern}},
            text=[percent(value) for value in values],
            textposition="outside",
            cliponaxis=False,
            hovertemplate=f"{name}: %{{x:.1%}}<extra></extra>",
        )
    highest = max(
        found.reference.repeated, found.reference.ending_in_loop,
        found.candidate.repeated, found.candidate.ending_in_loop, 0.1,
    )  # fmt: skip
    figure.update_xaxes(tickformat=".0%", range=[0, highest * 1.2], nticks=6)
    figure.update_yaxes(title=None, autorange="reversed", ticksuffix=" ")
    figure.update_layout(barmode="group", margin={"l": 130, "b": 30})
    return Picture(
        "Repetition",
        f"{found.prompts} short texts, continued greedily: bars of this file that are much longer "
        "than the reference's mean that it goes round in circles.",
        f"Repeated 4-grams: this file {percent(found.candidate.repeated)}, reference "
        f"{percent(found.reference.repeated)}. Ending in a loop: "
        f"{percent(found.candidate.ending_in_loop)} and {percent(found.reference.ending_in_loop)}.",
        figure,
        ("repetition",),
    )


def _distribution(found: Divergence) -> Picture:
    edges, counts = found.histogram
    shares = [count / sum(counts) for count in counts]
    figure = empty("nats (logarithmic)", "share of tokens", height=340)
    # Steps, not bars: plotly's bars have no widths of their own on a logarithmic axis.
    figure.add_scatter(
        x=[known(edge) for edge in edges],
        y=[known(share) for share in (*shares, shares[-1])],
        mode="lines",
        line={"shape": "hv", "color": CANDIDATE, "width": 1},
        fill="tozeroy",
        name="tokens",
        hovertemplate="from %{x:.2g} nats: %{y:.1%}<extra></extra>",
    )
    marks = (
        ("median", found.kld_median, "dot", "#111111"),
        ("mean", found.kld_mean.value if found.kld_mean else None, "solid", REFERENCE),
        ("99th percentile", found.kld_p99, "dash", THIRD),
    )
    for name, value, dash, colour in marks:
        if value:
            _mark(figure, f"{name} {nats(value)}", value, max(shares), dash, colour)
    figure.update_xaxes(type="log", exponentformat="power", dtick=_decades(edges))
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    return Picture(
        "Divergence, token by token",
        "Further to the right, the answers differ more; a second hump on the right is a kind of "
        "text that the file has lost. The leftmost step also holds all smaller values. "
        + REJECT_GATE,
        f"Median {_words(found.kld_median)}, 99th percentile {_words(found.kld_p99)}, greatest "
        f"{_words(found.kld_max)} nats.",
        figure,
        ("KL divergence",),
    )


def _mark(figure: Any, name: str, x: float, top: float, dash: str, colour: str) -> None:
    figure.add_scatter(
        x=[known(x)] * 2,
        y=[0, known(top)],
        mode="lines",
        name=name,
        line={"dash": dash, "color": colour, "width": 2},
        hoverinfo="name",
    )


def _decades(edges: list[float]) -> int:
    """Of the axis, between two of its labels."""
    return 1 if edges[-1] / edges[0] < 1e7 else 2


def _divergence_by_domain(found: Divergence) -> Picture:
    names = [label(name) for name in found.by_domain]
    values = [one.kld_mean for one in found.by_domain.values()]
    figure = _by_domain(names, "mean KL divergence, nats", legend=False)
    figure.add_bar(
        y=list(range(len(names))),
        x=[known(value) for value in values],
        orientation="h",
        marker={"color": CANDIDATE},
        text=[nats(value) for value in values],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{x:.4f} nats<extra></extra>",
    )
    figure.update_xaxes(range=[0, known(max(max(values) * 1.18, 0.01))], nticks=6)
    worst = max(found.by_domain, key=lambda name: found.by_domain[name].kld_mean)
    return Picture(
        "Divergence by domain",
        "A domain that stands out is what the file answers worst, against the reference.",
        f"Greatest in {word(worst)}: {nats(found.by_domain[worst].kld_mean)} nats.",
        figure,
        ("KL divergence",),
    )


def _shares_by_domain(found: Divergence, routing: PairedRouting | None) -> Picture:
    names = list(found.by_domain)
    figure = _by_domain([label(name) for name in names], "share", legend=True)
    places = list(range(len(names)))
    tops = [found.by_domain[name].top1_agreement for name in names]
    shares: list[float | None] = [*tops]
    _dots(figure, "same most likely token", places, tops, CANDIDATE, "circle")
    if routing is not None:
        overlaps = [routing.overlap_by_domain.get(name) for name in names]
        same = [one.value if one is not None else None for one in overlaps]
        shares += same
        _dots(figure, "same experts", places, same, REFERENCE, "diamond")
    figure.update_xaxes(tickformat=".0%", nticks=6, range=[share_floor(shares) - 0.01, 1.01])
    worst = min(names, key=lambda name: found.by_domain[name].top1_agreement)
    return Picture(
        "Agreement by domain",
        "Further to the right, both models agree more often"
        + (" on the next token, and on the experts for it." if routing else " on the next token."),
        f"Least agreement on the most likely token in {word(worst)}: "
        f"{percent(found.by_domain[worst].top1_agreement)}.",
        figure,
        ("top-1 agreement", "overlap") if routing else ("top-1 agreement",),
    )


def _dots(
    figure: Any,
    name: str,
    places: Sequence[int],
    values: Sequence[float | None],
    colour: str,
    symbol: str,
) -> None:
    figure.add_scatter(
        x=[known(value) for value in values],
        y=places,
        mode="markers",
        name=name,
        marker={"color": colour, "symbol": symbol, "size": 11},
        hovertemplate=f"{name}: %{{x:.1%}}<extra></extra>",
    )


def _by_domain(names: list[str], x_title: str, *, legend: bool) -> Any:
    figure = empty(x_title, "", height=(140 if legend else 90) + 26 * len(names), legend=legend)
    figure.update_yaxes(
        title=None,
        tickvals=list(range(len(names))),
        ticktext=[f"{name} " for name in names],
        range=[len(names) - 0.5, -0.5],
        zeroline=False,
        automargin=True,
    )
    return figure


def _words(value: float | None) -> str:
    return "unknown" if value is None else nats(value)
