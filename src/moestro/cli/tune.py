"""`moestro tune MODEL`: settings that win on this machine, by measurement."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moestro.cli.load_options import scenario_of, scenario_options, slo_of, slo_options
from moestro.cli.options import engine_options, json_option, wishes_of
from moestro.errors import UsageError
from moestro.units import parse_duration

if TYPE_CHECKING:
    from moestro.cli.tuning import Tuned
    from moestro.tune.journal import Event

INTERRUPTED = 130
DEFAULT_BUDGET = "5m"
_MOST_STREAMS = 1024


@click.command(name="tune")
@click.argument("model", default="demo")
@scenario_options
@click.option(
    "--concurrency",
    type=click.IntRange(1, _MOST_STREAMS),
    default=None,
    metavar="N",
    help="Users at once; each asks again when the answer is there (default: the scenario's).",
)
@slo_options
@click.option(
    "--budget",
    metavar="DURATION",
    default=DEFAULT_BUDGET,
    show_default=True,
    help="How long it may take, like 10m.",
)
@click.option(
    "--lossy-cache",
    is_flag=True,
    help="Try a KV cache in q8_0 too: smaller, at times faster, and not quite the same answers.",
)
@click.option(
    "--frontier",
    is_flag=True,
    help="Measure speed against waiting for fewer and more users too, in a quarter of the budget.",
)
@engine_options
@click.option(
    "--output",
    metavar="FILE.json",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Write the plan with the settings that were found: for export and doctor --plan.",
)
@json_option
@click.option("--anyway", is_flag=True, help="Start despite a finding of severity fail.")
def command(
    model: str,
    budget: str,
    concurrency: int | None,
    lossy_cache: bool,
    frontier: bool,
    output: Path | None,
    as_json: bool,
    anyway: bool,
    **given: Any,
) -> int:
    """Measure which settings serve MODEL fastest on this machine, and keep them.

    Runs the workload's own requests with one engine after the other, each beside the best so far,
    until nothing is left to gain or the budget is spent. What you fix by an option stays fixed.
    `plan`, `up`, `run` and `chat` use what was found. Ctrl-C keeps what was learned.
    """
    from moestro.tune.workload import Work

    scenario, slo = scenario_of(given), slo_of(given)
    seconds = parse_duration(budget)
    if seconds <= 0:
        raise UsageError("--budget must be greater than zero.", hint="Try --budget 5m.")
    if output is not None:
        from moestro.cli.page import check_place

        check_place(output, what="plan", option="--output")
    from moestro.cli.tuning import tuned

    work = Work(scenario, concurrency or scenario.concurrency, slo)
    with _progress(seconds) as on_event:
        found = tuned(
            model, work, wishes_of(given), seconds, on_event,
            lossy_cache=lossy_cache, frontier=frontier, anyway=anyway,
        )  # fmt: skip
    if output is not None:
        from moestro.cli.page import save

        save(json.dumps(found.plan.to_json(), indent=1), output, what="plan", option="--output")
    _show(found, output, as_json=as_json)
    return INTERRUPTED if found.stopped else 0


def _show(found: Tuned, output: Path | None, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_summary(found), ensure_ascii=False))
        return
    from rich.console import Console

    from moestro.cli.show_tune import show_tune

    show_tune(found, Console(highlight=False))
    if output is not None:
        print(f"\nThe plan is {output}.")


def _summary(found: Tuned) -> dict[str, Any]:
    return {
        **found.result.to_json(),
        "workload": found.work.to_json(),
        "stopped_by_user": found.stopped,
        "plan": found.plan.to_json(),
        "findings": [finding.to_json() for finding in found.findings],
    }


@contextmanager
def _progress(seconds: float) -> Iterator[Any]:
    """A bar over the budget on stderr, and above it what happened."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.text import Text

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), TimeElapsedColumn())
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting an engine", total=seconds)

        def note(event: Event) -> None:
            if event.kind == "measured":
                bar.update(task, description=_short(event.sentence))
            else:
                bar.print(Text(f"{event.spent_seconds:5.0f} s  {event.sentence}"))
            bar.update(task, completed=min(event.spent_seconds, seconds))

        yield note


def _short(text: str, most: int = 40) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
