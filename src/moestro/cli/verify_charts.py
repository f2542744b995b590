"""What the pictures of a verification have in common: colours, axes, lines with their bands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from moestro.routing.interval import Interval
from moestro.words import shown

CANDIDATE, REFERENCE = "#d55e00", "#0072b2"
"""From the palette of Okabe and Ito, which colour-blind people can tell; dashes and markers differ
as well."""

_BAND = "rgba(213, 94, 0, 0.2)"
THIRD = "#009e73"
_FLOOR = 0.8


@dataclass(frozen=True, slots=True)
class Picture:
    """`reading` says how to read it, `terms` names the terms that docs/concepts/routing.md (or
    verify.md) explains; `says` is what a person who cannot see it should know."""

    title: str
    reading: str
    says: str
    figure: Any
    terms: tuple[str, ...] = ()


def empty(x_title: str, y_title: str, *, height: int = 300, legend: bool = True) -> Any:
    from plotly import graph_objects

    figure = graph_objects.Figure(
        layout={
            "template": "plotly_white",
            "height": height,
            "margin": {"l": 60, "r": 15, "t": 45 if legend else 10, "b": 50},
            "showlegend": legend,
            "legend": {
                "orientation": "h",
                "x": 0,
                "y": 1.02,
                "yanchor": "bottom",
                "traceorder": "normal",
            },
            "font": {"size": 13, "family": "system-ui, sans-serif"},
        }
    )
    figure.update_xaxes(title={"text": x_title, "standoff": 10}, fixedrange=True)
    figure.update_yaxes(title=y_title, fixedrange=True)
    return figure


def line(
    figure: Any,
    name: str,
    x: Sequence[float],
    y: Sequence[float | None],
    colour: str,
    *,
    form: str,
    dash: str = "solid",
    symbol: str = "circle",
) -> None:
    figure.add_scatter(
        x=list(x),
        y=[known(value) for value in y],
        name=name,
        mode="lines+markers",
        line={"color": colour, "dash": dash, "width": 2},
        marker={"symbol": symbol, "size": 6 if len(x) < 40 else 4},
        hovertemplate=f"{name}: %{{y:{form}}}<extra></extra>",
    )


def band(figure: Any, x: Sequence[float], found: Sequence[Interval]) -> None:
    """95 % ranges under a line of the candidate's colour; a single layer's is an error bar."""
    lows = [known(one.value if one.low is None else one.low) for one in found]
    highs = [known(one.value if one.high is None else one.high) for one in found]
    if len(x) == 1:
        x, lows, highs = [x[0] - 0.2, x[0] + 0.2], lows * 2, highs * 2
    for ends, fill in ((lows, None), (highs, "tonexty")):
        figure.add_scatter(
            x=list(x),
            y=ends,
            mode="lines",
            line={"width": 0, "color": CANDIDATE},
            fill=fill,
            fillcolor=_BAND,
            showlegend=False,
            hoverinfo="skip",
        )


def layer_axis(figure: Any, layers: Sequence[int]) -> None:
    """Whole numbers with room at both ends."""
    figure.update_xaxes(
        title="layer",
        zeroline=False,
        range=[min(layers) - 0.5, max(layers) + 0.5],
        tickformat="d",
        dtick=1 if max(layers) - min(layers) < 12 else None,
        nticks=12,
    )


def bounds(values: Sequence[float | None], *, least: float) -> float:
    """How far a scale has to reach: so that all but the greatest few thousandths fit."""
    present = sorted(value for value in values if value is not None)
    if not present:
        return least
    return max(present[math.ceil(0.995 * (len(present) - 1))], least)


def share_floor(values: Sequence[float | None]) -> float:
    """Where an axis of shares begins that ends at 100 %: not so near it that noise looks large."""
    lowest = min((value for value in values if value is not None), default=_FLOOR)
    return max(min(_FLOOR, math.floor(lowest * 10) / 10), 0.0)


def known(value: float | None) -> float | None:
    """Short, and never NaN: JSON has none."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.5g}")


def word(text: str) -> str:
    """A word from a file, for a sentence."""
    return shown(text, 24)


def label(text: str) -> str:
    """The same for plotly, which takes some HTML."""
    return escape(word(text))


def height_of(rows: int) -> int:
    """Of a heat map: few rows are high, many still make a picture that fits a screen."""
    each = min(max(320 / max(rows, 1), 7), 28)
    return round(155 + each * rows)


def heat_map(
    rows: Sequence[Sequence[float | None]],
    names: Sequence[str],
    *,
    x_title: str,
    y_title: str,
    low: float,
    high: float,
    colours: str,
    unit: str,
    ticks: tuple[Sequence[float], Sequence[str]] | None = None,
) -> Any:
    """`rows` from the top; `names` are theirs. The colours' scale lies above it, where a narrow
    screen has room."""
    figure = empty("", y_title, height=height_of(len(rows)), legend=False)
    bar = {
        "orientation": "h",
        "x": 0.5,
        "y": 1,
        "yanchor": "bottom",
        "thickness": 10,
        "len": 1,
        "title": {"text": unit, "side": "top"},
        "nticks": 6,
    }
    if ticks is not None:
        bar |= {"tickvals": list(ticks[0]), "ticktext": list(ticks[1])}
    figure.add_heatmap(
        z=[[known(value) for value in row] for row in rows],
        zmin=low,
        zmax=high,
        colorscale=colours,
        colorbar=bar,
        customdata=[[name] * len(rows[0]) for name in names] if len(rows) < 100 else None,
        hovertemplate=f"%{{customdata}}, expert %{{x}}: %{{z:.2f}}<extra>{unit}</extra>",
        hoverongaps=False,
    )
    figure.update_layout(margin={"t": 60, "l": 60, "r": 15, "b": 55})
    # An axis's own title slips into a picture that is only a few rows high.
    figure.add_annotation(
        text=x_title,
        x=0.5,
        y=0,
        xref="paper",
        yref="paper",
        yanchor="top",
        yshift=-22,
        showarrow=False,
        font={"size": 14},
    )
    step = math.ceil(len(names) / 16)
    places = list(range(0, len(names), step))
    figure.update_yaxes(
        autorange="reversed",
        showgrid=False,
        zeroline=False,
        tickvals=places,
        ticktext=[names[place] for place in places],
    )
    figure.update_xaxes(showgrid=False, zeroline=False, tickformat="d", nticks=9, tickangle=0)
    if len(rows[0]) <= 8:
        figure.update_xaxes(dtick=1)
    return figure
