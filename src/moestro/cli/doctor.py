"""`moestro doctor [MODEL]`: is it safe to go live?"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moestro.cli.options import address_options, engine_options, json_option, wishes_of
from moestro.errors import UsageError
from moestro.findings import any_failed
from moestro.units import parse_duration
from moestro.words import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from moestro.cli.examining import Examined

LEAST_SOAK_SECONDS = 10.0


@click.command(name="doctor")
@click.argument("model", required=False)
@click.option(
    "--plan",
    "plan_path",
    metavar="PLAN",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Examine the settings of a plan file (moestro plan MODEL --json), as they stand.",
)
@click.option(
    "--soak",
    metavar="DURATION",
    default=None,
    help="Run the model under load for so long, like 60s, to see whether speed and memory hold.",
)
@click.option("--full", is_flag=True, help="Also what takes long: hash model files of any size.")
@click.option("--report", is_flag=True, help="A block to paste into a bug report.")
@address_options
@engine_options
@json_option
def command(
    model: str | None,
    plan_path: Path | None,
    soak: str | None,
    full: bool,
    report: bool,
    host: str,
    port: int,
    as_json: bool,
    **options: Any,
) -> int:
    """The checklist before deployment, run instead of read.

    Looks at this machine, and with MODEL also at the file, at the plan for it, at its chat template
    and tokenizer, and at the service that `moestro up` would start. Exit status 1 if anything
    fails. Nothing is changed.
    """
    from moestro.cli.examining import Wanted, examined
    from moestro.doctor.case import Address
    from moestro.gateway.key_file import keys_path, read_keys
    from moestro.planning import Wishes

    wishes = wishes_of(options)
    if plan_path is not None and wishes != Wishes():
        raise UsageError(
            "A plan has its settings already.", hint="Leave out --plan, or the other settings."
        )
    if as_json and report:
        raise UsageError("--json and --report are two forms of one answer.", hint="Take one.")
    seconds = _soak_seconds(soak)
    if seconds is not None and model is None and plan_path is None:
        model = "demo"
    address = Address(host, port, keys=bool(read_keys(keys_path())))
    wanted = Wanted(model, plan_path, wishes, address, full, seconds)
    with _status() as tell:
        found = examined(wanted, tell)
    _print(found, as_json=as_json, report=report)
    return 1 if any_failed(found.findings) else 0


def _soak_seconds(text: str | None) -> float | None:
    if text is None:
        return None
    seconds = parse_duration(text)
    if seconds < LEAST_SOAK_SECONDS:
        raise UsageError(
            f"A soak of {text} shows nothing.", hint=f"At least {LEAST_SOAK_SECONDS:.0f} s."
        )
    return seconds


@contextmanager
def _status() -> Iterator[Callable[[str], None]]:
    """Says on stderr, while it lasts, what is being looked at."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status("looking at this machine") as status:
        yield lambda text: status.update(Text(plain(text)))


def _print(found: Examined, *, as_json: bool, report: bool) -> None:
    from moestro.cli.show_doctor import counts, report_block, show_doctor

    if as_json:
        from moestro.cli.examining import to_json

        print(json.dumps({**to_json(found), "summary": counts(found.findings)}, ensure_ascii=False))
    elif report:
        sys.stdout.write(report_block(found.case, found.answers, found.seconds))
    else:
        from rich.console import Console

        show_doctor(found.case, found.answers, found.seconds, Console(highlight=False))
