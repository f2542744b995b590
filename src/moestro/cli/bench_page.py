"""One self-contained HTML page of a load: figures, distributions, latency over time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

from moestro.cli.bench_figures import (
    SPREAD_HEADS,
    SWEEP_LEGEND,
    error_lines,
    figure_rows,
    heading,
    notes,
    pace,
    spread_rows,
    sweep_heads,
    sweep_rows,
    what_was_sent,
)
from moestro.cli.bench_pictures import run_pictures, sweep_pictures
from moestro.cli.benching import Bench, Run
from moestro.cli.page import drawn, framed, save
from moestro.cli.verify_charts import Picture

_STYLE = """
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .92rem; }
th, td { text-align: right; padding: .18rem .6rem; border-bottom: 1px solid #ddd;
         overflow-wrap: normal; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { border-bottom: 2px solid #777; }
figure { margin: 1.4rem 0 0; break-inside: avoid; } h3 { font-size: 1rem; margin: 0; }
figcaption { color: #444; margin: 0 0 .3rem; } h2 { break-after: avoid; }
.error { border-left: 4px solid #a4161a; padding: .1rem .8rem; margin: .7rem 0; }
"""


def write_page(bench: Bench, path: Path) -> None:
    """Writes the page; it opens without a network.

    Raises:
        MoestroError: it cannot be written.
    """
    save(page_of(bench), path, what="report", option="--report")


def page_of(bench: Bench) -> str:
    """The whole page."""
    pictures = _Pictures()
    answered = [run for run in bench.runs if run.summary.requests]
    parts = [f"<h1>{escape(heading(bench))}</h1>", f"<p>{escape(bench.scenario.title)}</p>"]
    parts += [f"<p>{escape(note)}</p>" for note in notes(bench)]
    if len(bench.runs) > 1:
        parts += ["<h2>All loads</h2>", _table(sweep_heads(bench), sweep_rows(bench))]
        parts.append(f"<p>{SWEEP_LEGEND}</p>")
        parts += pictures.drawn(sweep_pictures(answered))
    for run in answered:
        parts += _run(run, pictures, several=len(bench.runs) > 1)
    if errors := list(error_lines(bench)):
        lines = "".join(f"<p>{escape(line)}</p>" for line in errors)
        parts += ["<h2>Errors</h2>", f'<div class="error">{lines}</div>']
    return framed(f"{heading(bench)}: bench", parts, _STYLE)


class _Pictures:
    """The first one brings the library."""

    def __init__(self) -> None:
        self._first = True

    def drawn(self, pictures: Iterable[Picture]) -> Iterator[str]:
        for picture in pictures:
            says = escape(f"{picture.title}. {picture.says}")
            yield (
                f"<figure><h3>{escape(picture.title)}</h3>"
                f"<figcaption>{escape(picture.reading)} {escape(picture.says)}</figcaption>"
                f'<div role="img" aria-label="{says}">'
                f"{drawn(picture.figure, first=self._first)}</div></figure>"
            )
            self._first = False


def _run(run: Run, pictures: _Pictures, *, several: bool) -> Iterator[str]:
    yield f"<h2>{escape(pace(run.load) if several else 'Figures')}</h2>"
    yield f"<p>{escape(what_was_sent(run))}</p>"
    yield _table(SPREAD_HEADS, spread_rows(run.summary))
    yield _table(("", ""), figure_rows(run.summary))
    yield from pictures.drawn(run_pictures(run))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    head = f"<thead><tr>{head}</tr></thead>" if any(heads) else ""
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f'<div class="wide"><table>{head}<tbody>{body}</tbody></table></div>'
