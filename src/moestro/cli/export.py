"""`moestro export PLAN --to TARGET`: the plan's settings for a tool that is already in use."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moestro.cli.options import engine_options, json_option, wishes_of
from moestro.errors import MoestroError, UsageError
from moestro.gateway.defaults import DEFAULT_HOST

if TYPE_CHECKING:
    from moestro.export.target import Target
    from moestro.planning import Wishes
    from moestro.planning.plan_file import PlanFile

TARGETS = (
    "llama-server", "llama-server-ini", "llama-swap", "ollama", "lm-studio", "vllm", "compose",
    "systemd", "kubernetes",
)  # fmt: skip
"""Names of `moestro.export.targets`, for the help; a test holds the two together."""

PORT = 8080
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:%-]{0,254}|::[A-Fa-f0-9:.%]*", re.ASCII)


@click.command(name="export")
@click.argument("source", metavar="PLAN")
@click.option("--to", "name", metavar="TARGET", help=f"One of: {', '.join(TARGETS)}.")
@click.option(
    "--out",
    metavar="FOLDER|FILE",
    default=None,
    help="Write there instead of printing (`-`); a folder gets the files under their usual names.",
)
@click.option(
    "--host",
    metavar="ADDRESS",
    default=DEFAULT_HOST,
    show_default=True,
    help="Address at which clients reach the server.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="N",
    default=PORT,
    show_default=True,
    help="Port of the server.",
)
@click.option("--force", is_flag=True, help="Write over files that are there.")
@click.option("--anyway", is_flag=True, help="Export a plan that fails all the same.")
@engine_options
@json_option
def command(
    source: str,
    name: str | None,
    out: str | None,
    host: str,
    port: int,
    force: bool,
    anyway: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Write PLAN as another tool's configuration.

    PLAN is what `moestro plan MODEL --json` printed, in a file or on standard input (`-`). A MODEL
    in its place is planned for this machine first. What the tool cannot be told is said on stderr,
    with the steps to use what was written.
    """
    target = _target(name)
    if not _HOST.fullmatch(host):
        raise UsageError(f"{host!r} is not an address.", hint="Like --host 127.0.0.1.")
    if out == "":
        raise UsageError("--out names no file.", hint="Like --out . for this folder.")
    plan = _plan(source, wishes_of(options))
    if not anyway:
        _refuse_failing(plan)
    from moestro.cli.export_files import at_home, engine_program
    from moestro.export.deployment import Deployment

    deployment = Deployment.of(at_home(plan), host, port, engine_program(plan))
    exported = target.export(deployment)
    written = []
    if out == "-":
        out = None
    if out is not None:
        from moestro.cli.export_files import write

        written = write(exported.files, out, force=force)
    if as_json:
        found = {"target": target.name, **asdict(exported), "written": [*map(str, written)]}
        print(json.dumps(found, ensure_ascii=False))
        return 0
    from moestro.cli.show_export import show_advice, show_files

    if out is None:
        show_files(exported.files, sys.stdout)
        sys.stdout.flush()  # what goes to stderr comes after it
    show_advice(target, exported, written, sys.stderr)
    return 0


def _target(name: str | None) -> Target:
    hint = f"--to takes {', '.join(TARGETS)}."
    if name is None:
        raise UsageError("Say for which tool: --to TARGET.", hint=hint)
    from moestro.export.targets import TARGETS as KNOWN

    for target in KNOWN:
        if target.name == name.lower():
            return target
    from difflib import get_close_matches

    near = get_close_matches(name.lower(), TARGETS, n=1)
    if near:
        hint = f"Did you mean {near[0]}? {hint}"
    raise UsageError(f"There is no target {name!r}.", hint=hint)


def _plan(source: str, wishes: Wishes) -> PlanFile:
    """The plan in a file or on standard input, or of a model on this machine."""
    from moestro.planning.plan_file import MOST_BYTES, PlanFile
    from moestro.planning.wishes import Wishes

    written = source == "-" or _looks_like_a_plan(Path(source))
    if written and wishes != Wishes():
        raise UsageError(
            "A plan has its settings already.", hint="Export a MODEL, or leave the settings out."
        )
    if source == "-":
        return PlanFile.from_bytes(sys.stdin.buffer.read(MOST_BYTES + 1), "Standard input")
    if written:
        return PlanFile.read(Path(source))
    from moestro.cli.planning import plan_of, seen_by_engine
    from moestro.hardware import this_inventory

    machine = seen_by_engine(this_inventory(), wishes.engine)
    return PlanFile.of(plan_of(source, machine, wishes))


def _refuse_failing(plan: PlanFile) -> None:
    """Raises MoestroError: with these settings the server would not start, or not for long."""
    for finding in plan.findings:
        evidence = f": {finding.evidence}" if finding.evidence else ""
        raise MoestroError(
            f"{finding.title}{evidence}.",
            hint=f"{finding.fix or 'See moestro plan.'} --anyway exports it all the same.",
            code=finding.code,
        )
    if plan.fits is False:
        raise MoestroError(
            "The plan does not fit its machine.",
            hint="moestro plan says what would fit; --anyway exports it all the same.",
            code="memory-short",
        )


def _looks_like_a_plan(path: Path) -> bool:
    """Anything called JSON, or a file that begins like it: no model does."""
    if path.suffix.lower() == ".json":
        return True
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip().startswith(b"{")
    except (OSError, ValueError):
        return False
