"""`moestro verify MODEL --reference REF`: is this file as good as its reference?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moestro.cli.options import (
    CACHE_TYPES,
    ENGINE_THREADS_MAX,
    INT_MAX,
    json_option,
    report_option,
)
from moestro.errors import MoestroError, UsageError

if TYPE_CHECKING:
    from moestro.verify.subject import Progress
    from moestro.verify.verdict import Verification


@click.command(name="verify")
@click.argument("model")
@click.option(
    "--reference",
    metavar="REF",
    default=None,
    help="What MODEL was made from: a model with more bits, or a .moeref file of one.",
)
@click.option(
    "--record",
    metavar="FILE.moeref",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Run MODEL as a reference and keep its results, for comparisons without its weights.",
)
@click.option(
    "--text",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    multiple=True,
    help="Text of your own instead of the built-in one; several files count as several domains.",
)
@click.option(
    "--tokens",
    type=click.IntRange(512, INT_MAX),
    default=None,
    metavar="N",
    help="At most so many tokens of text (default: 16384).",
)
@click.option(
    "--generations",
    type=click.IntRange(0, 256),
    default=None,
    metavar="N",
    help="Short texts to continue, to see whether it repeats itself (default: 16).",
)
@click.option(
    "--policy",
    metavar="FILE.toml",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Limits of your own instead of some of the built-in ones.",
)
@report_option("Write a page with heat maps of the experts and the distribution of the divergence.")
@click.option(
    "--cache-type",
    type=click.Choice(CACHE_TYPES),
    default=None,
    help="Precision of MODEL's KV cache, to see what that costs (default: f16).",
)
@click.option(
    "--gpu-layers",
    type=click.IntRange(0, INT_MAX),
    default=None,
    metavar="N",
    help="Layers on the GPU (default: what fits).",
)
@click.option(
    "--threads",
    type=click.IntRange(1, ENGINE_THREADS_MAX),
    default=None,
    metavar="N",
    help="CPU threads to compute on.",
)
@json_option
def command(
    model: str,
    reference: str | None,
    record: Path | None,
    text: tuple[Path, ...],
    policy: Path | None,
    report: Path | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Compare MODEL with the model it was made from, and judge it.

    Runs the same text through both: how far apart their answers are, whether the same experts are
    chosen, whether it repeats itself; and compares what the two files hold. The verdict is kept:
    `up` refuses a model whose verdict is fail.
    """
    if (reference is None) == (record is None):
        raise UsageError(
            "Say what MODEL is to be compared with, or that it is to be recorded."
            if reference is None
            else "A model is either compared with a reference or recorded as one.",
            hint="moestro verify MODEL --reference REF, or moestro verify REF --record FILE.moeref",
        )
    if record is not None:
        unused = {"--policy": policy, "--report": report, "--cache-type": given["cache_type"]}
        if names := [name for name, value in unused.items() if value is not None]:
            raise UsageError(
                f"{' and '.join(names)} belong to a comparison, not to a recording.",
                hint="Give them when MODEL is compared with the recording.",
            )
        return _record(model, record, text, given, as_json=as_json)
    assert reference is not None
    return _verify(model, reference, text, policy, report, given, as_json=as_json)


def _verify(
    model: str,
    reference: str,
    texts: Sequence[Path],
    policy_file: Path | None,
    report: Path | None,
    given: dict[str, Any],
    *,
    as_json: bool,
) -> int:
    from moestro.cli.main import report_error
    from moestro.cli.page import check_report
    from moestro.cli.verifying import verified

    if report is not None:
        check_report(report)
    with _progress() as progress:
        found = verified(model, reference, texts, policy_file, given, progress)
    trouble = _write_page(found, report) if report is not None else None
    if as_json:
        print(json.dumps(found.to_json(), ensure_ascii=False))
    else:
        from rich.console import Console

        from moestro.cli.show_verify import show_verification

        show_verification(found, Console(highlight=False))
        if report is not None and trouble is None:
            print(f"\nThe page is {report}.")
    if trouble is not None:
        report_error(trouble, as_json=False)  # what was found is said all the same
    return 1 if found.verdict == "fail" or trouble is not None else 0


def _write_page(found: Verification, report: Path) -> MoestroError | None:
    from moestro.cli.verify_page import write_page

    try:
        write_page(found, report)
    except MoestroError as error:
        return error
    return None


def _record(
    model: str, path: Path, texts: Sequence[Path], given: dict[str, Any], *, as_json: bool
) -> int:
    from moestro.cli.verifying import recorded

    with _progress() as progress:
        kept = recorded(model, path, texts, given, progress)
    if as_json:
        print(json.dumps(kept, ensure_ascii=False))
    else:
        from moestro.units import format_bytes

        print(f"{path}: {format_bytes(kept['size_bytes'])}, {kept['chunks']} chunks of text.")
        print(f"Compare with it: moestro verify MODEL --reference {path}")
    return 0


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on stderr for each thing that is done, one after the other."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)
        current = ""

        def show(what: str, done: int, total: int) -> None:
            nonlocal current
            if what != current:
                bar.reset(task, description=what, total=total or None)
                current = what
            bar.update(task, completed=done, total=total or None)

        yield show
