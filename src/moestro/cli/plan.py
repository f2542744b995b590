"""`moestro plan MODEL`: does it fit, how fast, with which settings, and what else would work."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moestro.cli.options import engine_options, json_option, wishes_of, workload_options
from moestro.errors import EngineError, UsageError
from moestro.findings import any_failed

if TYPE_CHECKING:
    from moestro.engine.llama_cpp.dry_run_process import DryRunProcess
    from moestro.hardware import Inventory
    from moestro.planning import Plan, Wishes


@click.command(name="plan")
@click.argument("models", nargs=-1, required=True, metavar="MODEL")
@click.option(
    "--hardware",
    "machines",
    metavar="NAME|FILE",
    multiple=True,
    help="A machine you do not sit at: rtx-4090, “2 × rtx-4090, 128 GiB DDR5-5600”, or a TOML "
    "file. Several are compared.",
)
@workload_options
@engine_options
@click.option(
    "--compare", metavar="MODEL…", multiple=True, help="More models, in one table with the first."
)
@click.option(
    "--chart",
    metavar="FILE.html",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Write a page with the frontier of size, speed and context.",
)
@json_option
def command(
    models: tuple[str, ...],
    machines: tuple[str, ...],
    compare: tuple[str, ...],
    chart: Path | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Plan MODEL for this machine, or for one that is not here.

    Reads the header only, also of a model on a hub: nothing is downloaded or loaded. Prints memory
    per device, the expected speed with its range, the settings with their reasons, and what else
    would work.
    """
    first, *rest = models
    if rest and not compare:
        raise UsageError(
            f"One model at a time: {first}, not {len(models)}.",
            hint=f"Compare them: moestro plan {first} --compare {' '.join(rest)}",
        )
    names = list(dict.fromkeys([first, *compare, *rest]))
    if len(names) * len(machines or "1") > 1:
        if chart is not None:
            raise UsageError(
                "--chart draws one model on one machine.", hint="Leave out --compare, or --chart."
            )
        return _several(names, machines, options, as_json=as_json)
    with _started_early() as process:
        return _one(first, machines, options, chart, process, as_json=as_json)


@contextmanager
def _started_early() -> Iterator[DryRunProcess | None]:
    """The engine's process loads its library while this one still imports the planner."""
    from moestro.engine.llama_cpp.dry_run_process import DryRunProcess

    try:
        process = DryRunProcess()
    except EngineError:  # said when the engine is asked
        yield None
        return
    try:
        yield process
    finally:
        process.close()


def _one(
    name: str,
    machines: Sequence[str],
    options: dict[str, Any],
    chart: Path | None,
    process: DryRunProcess | None,
    *,
    as_json: bool,
) -> int:
    from moestro.cli.planning import charted, planned

    wishes = wishes_of(options)
    place = _places(machines, wishes)[0]
    ready = _nothing if as_json else _ready_to_show
    with planned(name, place, wishes, process, ready) as (planner, plan):
        if chart is not None:
            charted(planner, plan, chart)
    if as_json:
        print(json.dumps(plan.to_json(), ensure_ascii=False))
    else:
        from rich.console import Console

        from moestro.cli.show_plan import show_plan

        show_plan(plan, Console(highlight=False))
        if chart is not None:
            print(f"\nThe chart is in {chart}.")
    return 1 if _failed(plan) else 0


def _ready_to_show() -> None:
    """Imports what prints a plan, which takes as long as the engine's answer."""
    importlib.import_module("moestro.cli.show_plan")


def _nothing() -> None:
    pass


def _several(
    names: list[str], machines: Sequence[str], options: dict[str, Any], *, as_json: bool
) -> int:
    from moestro.cli.planning import plan_of

    wishes = wishes_of(options)
    places = _places(machines, wishes)
    plans = [
        (_label(name, place, names, places), plan_of(name, place, wishes))
        for name in names
        for place in places
    ]
    return _compared(plans, as_json=as_json)


def _places(machines: Sequence[str], wishes: Wishes) -> list[Inventory]:
    """The machines that were named, or this one."""
    from moestro.cli.planning import seen_by_engine
    from moestro.hardware import hardware_named, this_inventory

    if machines:
        return [hardware_named(name) for name in machines]
    return [seen_by_engine(this_inventory(), wishes.engine)]


def _compared(plans: list[tuple[str, Plan]], *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"plans": [plan.to_json() for _, plan in plans]}, ensure_ascii=False))
    else:
        from rich.console import Console

        from moestro.cli.show_plan import show_comparison

        show_comparison(plans, Console(highlight=False))
    return 1 if all(_failed(plan) for _, plan in plans) else 0


def _failed(plan: Plan) -> bool:
    return any_failed((*plan.model.findings, *plan.findings))


def _label(name: str, place: Inventory, names: list[str], places: list[Inventory]) -> str:
    words = [Path(name).name if len(names) > 1 else "", place.name or "this machine"]
    return " on ".join(word for word in words if word) if len(places) > 1 else words[0]
