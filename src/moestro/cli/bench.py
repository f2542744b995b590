"""`moestro bench [URL]`: load on an endpoint, and how it holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moestro.cli.load_options import (
    numbers,
    positive_seconds,
    scenario_of,
    scenario_options,
    slo_of,
    slo_options,
)
from moestro.cli.options import INT_MAX, json_option, report_option
from moestro.cli.services import key_for
from moestro.errors import MoestroError, UsageError

if TYPE_CHECKING:
    from moestro.cli.benching import Bench, OnRecord
    from moestro.load import Load, Scenario

INTERRUPTED = 130
DEFAULT_SECONDS = 30.0

_MOST_AT_ONCE = 4096
_MOST_RATE = 10_000.0


@click.command(name="bench")
@click.argument("url", required=False)
@scenario_options
@click.option(
    "--requests",
    type=click.IntRange(1, INT_MAX),
    default=None,
    metavar="N",
    help="End after so many requests.",
)
@click.option(
    "--duration",
    metavar="DURATION",
    default=None,
    help="Send requests for so long, like 60s (default: 30s, unless --requests is given).",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, _MOST_AT_ONCE),
    default=None,
    metavar="N",
    help="Users at once; each asks again when the answer is there (default: the scenario's).",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, _MOST_RATE, min_open=True),
    default=None,
    metavar="R",
    help="Requests per second, sent when due, answered or not.",
)
@click.option(
    "--arrivals",
    type=click.Choice(("poisson", "constant")),
    default=None,
    help="How --rate spaces them (default: poisson).",
)
@click.option(
    "--sweep",
    metavar="N,N,…",
    default=None,
    help="Several concurrencies, one after the other, like 1,2,4,8.",
)
@slo_options
@click.option(
    "--api-key",
    metavar="KEY",
    default=None,
    help="Key of the endpoint (default: MOESTRO_API_KEY or OPENAI_API_KEY).",
)
@click.option(
    "--model", metavar="MODEL", default=None, help="Model to ask (default: the endpoint's first)."
)
@click.option(
    "--seed",
    type=click.IntRange(0, (1 << 32) - 1),
    default=0,
    metavar="N",
    help="Other texts of the same kind; the same seed sends the same requests.",
)
@click.option(
    "--ignore-eos",
    is_flag=True,
    help="Answers of full length, where the engine can (llama.cpp and vLLM).",
)
@click.option(
    "--warmup",
    type=click.IntRange(0, 1000),
    default=1,
    show_default=True,
    metavar="N",
    help="Requests that are sent before and not counted.",
)
@report_option("Write a page with plots.")
@json_option
def command(
    url: str | None,
    model: str | None,
    api_key: str | None,
    report: Path | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Put a load on an OpenAI endpoint and say how it holds.

    Without URL the endpoint that runs on this machine is asked; where none does, the model is
    started for this one call. Ctrl-C ends the load and keeps what was measured.
    """
    from moestro.cli.benching import bench
    from moestro.cli.page import check_report
    from moestro.load import Target

    made_prompts = given["prompts"] is None
    scenario, slo = scenario_of(given), slo_of(given)
    loads = _loads(scenario, given, made_prompts=made_prompts)
    target = None if url is None else Target(url, api_key or key_for(url), model)
    if report is not None:
        check_report(report)
    with _progress(loads) as on_record:
        found = bench(target, model, loads, slo, on_record, made_prompts=made_prompts)
    trouble = _write_page(found, report) if report is not None and found.answered else None
    _show(found, None if trouble else report, as_json=as_json)
    if trouble is not None:
        from moestro.cli.main import report_error

        report_error(trouble, as_json=False)  # what was found is said all the same
    if found.interrupted:
        return INTERRUPTED
    return 1 if trouble is not None or found.lost or not found.answered else 0


def _loads(scenario: Scenario, given: dict[str, Any], *, made_prompts: bool) -> list[Load]:
    from moestro.load import Load

    paces = {f"--{name}": given[name] for name in ("concurrency", "rate", "sweep")}
    if len(named := [name for name, value in paces.items() if value is not None]) > 1:
        raise UsageError(f"{' and '.join(named)} exclude each other: how is it to be asked?")
    if given["arrivals"] is not None and given["rate"] is None:
        raise UsageError("--arrivals belongs to --rate.", hint="Give a rate, like --rate 2.")
    seconds = positive_seconds("duration", given["duration"])
    if seconds is None and given["requests"] is None:
        seconds = DEFAULT_SECONDS
    load = Load(
        scenario,
        seed=given["seed"],
        requests=given["requests"],
        seconds=seconds,
        concurrency=given["concurrency"],
        rate=given["rate"],
        arrivals=given["arrivals"] or "poisson",
        ignore_eos=given["ignore_eos"],
        # A warm-up by one of the user's own prompts would leave it in the endpoint's cache.
        warmup_requests=given["warmup"] if made_prompts else 0,
    )
    if given["sweep"] is None:
        return [load]
    steps = numbers(given["sweep"], "--sweep", most=_MOST_AT_ONCE)
    # Each step has texts of its own: the same again would be found in the endpoint's cache.
    return [
        replace(load, concurrency=users, seed=load.seed + (number << 32))
        for number, users in enumerate(steps)
    ]


def _write_page(found: Bench, report: Path) -> MoestroError | None:
    from moestro.cli.bench_page import write_page

    try:
        write_page(found, report)
    except MoestroError as error:
        return error
    return None


def _show(found: Bench, report: Path | None, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found.to_json(), ensure_ascii=False))
        return
    from rich.console import Console

    from moestro.cli.show_bench import show_bench

    show_bench(found, Console(highlight=False))
    if report is not None and found.answered:
        print(f"\nThe page is {report}.")


@contextmanager
def _progress(loads: list[Load]) -> Iterator[OnRecord]:
    """A bar on stderr for each load, one after the other."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from moestro.cli.bench_figures import pace
    from moestro.load import RequestRecord

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)
        current: Load | None = None
        done = tokens = failed = 0

        def note(load: Load, record: RequestRecord) -> None:
            nonlocal current, done, tokens, failed
            if load is not current:
                current, done, tokens, failed = load, 0, 0, 0
                bar.reset(task)
            done += 1
            failed += record.error is not None
            tokens += record.tokens
            rate = tokens / record.ended if record.ended > 0 else 0.0
            trouble = f", {failed} failed" if failed else ""
            bar.update(
                task,
                description=f"{pace(load)}: {done} requests{trouble}, {rate:.0f} tokens/s",
                total=load.requests or load.seconds,
                completed=done if load.requests else record.ended,
            )

        yield note
