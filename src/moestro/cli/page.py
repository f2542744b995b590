"""The frame of pages with charts: one file that opens without a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

from moestro.errors import MoestroError, UsageError

ENDINGS = (".html", ".htm")

_STYLE = """
body { font: 16px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem;
       color: #1a1a1a; background: #fff; overflow-wrap: anywhere; }
h1 { font-size: 1.3rem; margin: 0 0 .2rem; } h2 { font-size: 1.05rem; margin: 1.6rem 0 .2rem; }
p { margin: .2rem 0; color: #444; }
"""
# A browser prints what is on the screen: charts are drawn again as wide as paper, then as before.
_PRINTING = """
const draw = width => document.querySelectorAll(".js-plotly-plot").forEach(
    chart => Plotly.relayout(chart, {width: width, autosize: width === null}));
addEventListener("beforeprint", () => draw(680));
addEventListener("afterprint", () => draw(null));
"""


def drawn(figure: Any, *, first: bool) -> str:
    """A plotly figure as HTML; the `first` one of a page brings the library."""
    from plotly import io

    return str(
        io.to_html(
            figure,
            full_html=False,
            include_plotlyjs=first,
            config={"displayModeBar": False, "responsive": True},
        )
    )


def framed(title: str, parts: Sequence[str], style: str = "") -> str:
    """The whole page. `title` is text; `parts` and `style` are HTML and CSS."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}{style}</style></head>"
        f"<body>{''.join(parts)}<script>{_PRINTING}</script></body></html>"
    )


def save(page: str, path: Path, *, what: str, option: str) -> None:
    """Writes the `what` to the place that `option` named.

    Raises:
        MoestroError: it cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    with _writing(path, what, option):
        try:
            part.write_text(page, encoding="utf-8", errors="replace")
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise


def check_place(path: Path, *, what: str, option: str) -> None:
    """Whether the `what` could be written there, before minutes are spent on it.

    Raises:
        MoestroError: it could not.
    """
    with _writing(path, what, option):
        existed = path.exists()
        path.open("ab").close()
        if not existed:
            path.unlink()


def check_report(path: Path) -> None:
    """Whether `--report` can be obeyed, before minutes are spent on what it is to show.

    Raises:
        MoestroError: it cannot.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(
            f"The page is written as HTML, and {path.name} has another ending.",
            hint="Give it a name like report.html.",
        )
    check_place(path, what="report", option="--report")


@contextmanager
def _writing(path: Path, what: str, option: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MoestroError(
            f"The {what} could not be written to {path}: {error.strerror or error}.",
            hint=f"Choose another place with {option}.",
            code="not-written",
        ) from error
