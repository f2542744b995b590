"""Pictures of what the experts did: their load, whether the same are chosen, and for what text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from moestro.cli.verify_charts import (
    CANDIDATE,
    REFERENCE,
    THIRD,
    Picture,
    band,
    bounds,
    empty,
    heat_map,
    known,
    label,
    layer_axis,
    line,
    share_floor,
    word,
)
from moestro.cli.verify_figures import nats, percent
from moestro.routing.paired import PairedRouting
from moestro.routing.preference import Preference
from moestro.routing.profile import RoutingProfile
from moestro.verify.policy import Policy

_MOST_LIFT = 8.0
_EXPERTS = "expert"
_LAYERS = "layer"


def routing_pictures(found: PairedRouting, policy: Policy) -> Iterator[Picture]:
    yield from _loads(found)
    yield _overlap(found, policy)
    if any(layer.router_kl is not None for layer in found.layers):
        yield _router_kl(found)
    yield _effective_experts(found)
    yield from _preferences(found)


def _loads(found: PairedRouting) -> Iterator[Picture]:
    experts = found.reference.experts
    names = [str(layer.layer) for layer in found.layers]
    theirs = [[known(s * experts) for s in layer.load_reference] for layer in found.layers]
    ours = [[known(s * experts) for s in layer.load] for layer in found.layers]
    top = bounds([value for row in (*theirs, *ours) for value in row], least=2.0)
    for whose, rows in (("the reference", theirs), ("this file", ours)):
        busiest = max((value or 0.0, n, e) for n, row in zip(names, rows, strict=True)
                      for e, value in enumerate(row))  # fmt: skip
        yield Picture(
            f"Load of the experts: {whose}",
            "One row for each layer, one cell for each expert; 1 is an even share, dark cells are "
            "hardly used, the brightest colour also stands for all that is busier. "
            "Both pictures of loads have the same colours.",
            f"The busiest is expert {busiest[2]} of layer {busiest[1]}, with {busiest[0]:.1f} "
            "times an even share.",
            heat_map(
                rows,
                names,
                x_title=_EXPERTS,
                y_title=_LAYERS,
                low=0,
                high=top,
                colours="Cividis",
                unit="load, times an even share",
            ),
            ("load", "max load"),
        )
    yield _load_difference(found, names, theirs, ours)


def _load_difference(
    found: PairedRouting,
    names: Sequence[str],
    theirs: Sequence[Sequence[float | None]],
    ours: Sequence[Sequence[float | None]],
) -> Picture:
    rows = [
        [None if a is None or b is None else b - a for a, b in zip(before, after, strict=True)]
        for before, after in zip(theirs, ours, strict=True)
    ]
    reach = bounds([abs(v) for row in rows for v in row if v is not None], least=0.25)
    worst = max(found.layers, key=lambda layer: layer.load_shift)
    return Picture(
        "Load of the experts: difference",
        "Red experts have more to do than in the reference, blue ones less; a whole row in strong "
        "colours is a router that works differently.",
        f"Most has moved in layer {worst.layer}: {percent(worst.load_shift)} of its selections.",
        heat_map(
            rows,
            names,
            x_title=_EXPERTS,
            y_title=_LAYERS,
            low=-reach,
            high=reach,
            colours="RdBu_r",
            unit="this file less the reference",
        ),
        ("load shift",),
    )


def _overlap(found: PairedRouting, policy: Policy) -> Picture:
    figure = empty(_LAYERS, "share", height=360)
    numbers = [layer.layer for layer in found.layers]
    overlaps = [layer.overlap for layer in found.layers]
    band(figure, numbers, overlaps)
    values: list[float | None] = [one.value for one in overlaps]
    line(figure, "same experts", numbers, values, CANDIDATE, form=".1%")
    shares = list(values)
    extra = (
        ("without near ties", [layer.overlap_clear for layer in found.layers], THIRD, "dot", "x"),
        ("gate mass", [layer.gate_mass_overlap for layer in found.layers], REFERENCE, "dash",
         "square"),
    )  # fmt: skip
    for name, intervals, colour, dash, symbol in extra:
        if any(interval is not None for interval in intervals):
            ys = [interval.value if interval else None for interval in intervals]
            shares += ys
            line(figure, name, numbers, ys, colour, form=".1%", dash=dash, symbol=symbol)
    limit = policy.limits.get("layer_gate_mass_overlap")
    limits = [(n, v) for n, v in (("warn", limit.warn), ("fail", limit.fail)) if v] if limit else []
    lows = [one.low for one in overlaps if one.low is not None]
    floor = share_floor([*shares, *lows])
    for name, value in limits:
        if value > floor:
            figure.add_scatter(
                x=[numbers[0] - 0.5, numbers[-1] + 0.5],
                y=[value, value],
                mode="lines",
                name=f"{name}, gate mass",
                line={"color": "#555555", "dash": "longdash", "width": 1},
                hoverinfo="skip",
            )
    layer_axis(figure, numbers)
    figure.update_yaxes(tickformat=".0%", range=[floor - 0.01, 1.01])
    worst = found.worst_layer
    return Picture(
        "The same experts, by layer",
        "How often both models choose the same experts for a token; the shaded band is the 95 % "
        f"range, and two routers that know nothing of each other reach {found.chance_overlap:.0%}.",
        f"Least in layer {worst.layer}, {percent(worst.overlap.value)}; "
        f"{percent(found.overlap.value)} over all.",
        figure,
        ("overlap", "near tie", "gate-mass overlap"),
    )


def _router_kl(found: PairedRouting) -> Picture:
    figure = empty(_LAYERS, "nats", height=260, legend=False)
    numbers = [layer.layer for layer in found.layers if layer.router_kl is not None]
    intervals = [layer.router_kl for layer in found.layers if layer.router_kl is not None]
    band(figure, numbers, intervals)
    values = [interval.value for interval in intervals]
    line(figure, "router KL", numbers, values, CANDIDATE, form=".4f")
    layer_axis(figure, numbers)
    figure.update_yaxes(rangemode="tozero")
    greatest = max(range(len(values)), key=values.__getitem__)
    return Picture(
        "Divergence of the routers, by layer",
        "How far each router's distribution over the experts is from the reference's: a rise with "
        "depth is error that adds up, a single peak is a damaged router. The band is the 95 % "
        "range.",
        f"Greatest in layer {numbers[greatest]}: {nats(values[greatest])} nats.",
        figure,
        ("router KL",),
    )


def _effective_experts(found: PairedRouting) -> Picture:
    figure = empty(_LAYERS, "effective experts", height=280)
    numbers = [layer.layer for layer in found.layers]
    theirs = [layer.effective_experts_reference for layer in found.layers]
    ours = [layer.effective_experts for layer in found.layers]
    line(figure, "reference", numbers, theirs, REFERENCE, form=".1f", dash="dash", symbol="square")
    line(figure, "this file", numbers, ours, CANDIDATE, form=".1f")
    layer_axis(figure, numbers)
    figure.update_yaxes(rangemode="tozero")
    lowest = min(found.layers, key=lambda layer: layer.effective_experts)
    return Picture(
        "Effective experts, by layer",
        f"As many equally busy experts, of {found.reference.experts}, would share the work as "
        "evenly: where this file's line drops below the reference's, its routing has collapsed.",
        f"Fewest in layer {lowest.layer}: {lowest.effective_experts:.1f}, in the reference "
        f"{lowest.effective_experts_reference:.1f}.",
        figure,
        ("effective experts", "collapse"),
    )


def _preferences(found: PairedRouting) -> Iterator[Picture]:
    """How much experts tell of the kind of text, and where they tell most."""
    theirs, ours = _informed(found.reference), _informed(found.candidate)
    if not theirs or not ours:
        return
    figure = empty(_LAYERS, "nats", height=260)
    for name, known_of, colour, dash, symbol in (
        ("reference", theirs, REFERENCE, "dash", "square"),
        ("this file", ours, CANDIDATE, "solid", "circle"),
    ):
        line(
            figure,
            name,
            list(known_of),
            [_information(one) for one in known_of.values()],
            colour,
            form=".4f",
            dash=dash,
            symbol=symbol,
        )
    layer_axis(figure, [layer.layer for layer in found.layers])
    figure.update_yaxes(rangemode="tozero")
    most = max(theirs, key=lambda layer: _information(theirs[layer]))
    yield Picture(
        "How much experts tell of the kind of text, by layer",
        "At 0 an expert is as busy in every domain; lines that part mean that experts have lost "
        "(or gained) a speciality.",
        f"Most in layer {most} of the reference: {nats(_information(theirs[most]))} nats.",
        figure,
        ("expert preference", "information"),
    )
    if most not in ours or ours[most].domains != theirs[most].domains:
        return
    for whose, one in (("the reference", theirs[most]), ("this file", ours[most])):
        yield _lift(one, most, whose)


def _lift(found: Preference, layer: int, whose: str) -> Picture:
    reach = math.log2(_MOST_LIFT)

    def scaled(lift: float) -> float | None:
        """Doublings; what is never there has no logarithm, and lies at the end of the scale."""
        if not math.isfinite(lift):
            return None
        return max(-reach, min(math.log2(lift), reach)) if lift > 0 else -reach

    rows = [[scaled(float(lift)) for lift in row] for row in found.lift]
    favourites = [
        f"{word(domain)}: expert {best[0][0]}, {best[0][1]:.1f} times"
        for domain in found.domains
        if (best := found.favourites(domain, 1))
    ]
    figure = heat_map(
        rows,
        [label(domain) for domain in found.domains],
        x_title=_EXPERTS,
        y_title="",
        low=-reach,
        high=reach,
        colours="RdBu_r",
        unit="times as busy as in all text",
        ticks=([-3, -2, -1, 0, 1, 2, 3], ["⅛", "¼", "½", "1", "2", "4", "8"]),
    )
    figure.update_yaxes(title=None, automargin=True, ticksuffix=" ")
    return Picture(
        f"Preferred domains of the experts, layer {layer}: {whose}",
        "The layer in which the reference's experts tell most of the domain; red experts are "
        "busier in that domain than elsewhere, and both pictures should look alike.",
        f"Busiest: {'; '.join(favourites)}."
        if favourites
        else "No expert is busier in one domain than in another.",
        figure,
        ("expert preference", "lift"),
    )


def _informed(profile: RoutingProfile) -> dict[int, Preference]:
    return {
        layer.layer: layer.preference for layer in profile.layers if layer.preference is not None
    }


def _information(found: Preference) -> float:
    """Less what chance makes of it, where that is known."""
    return found.information_raw if found.information is None else found.information
