"""One self-contained HTML page of a verification: verdict, findings, figures, pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

from moestro.cli.output_pictures import output_pictures, repetition_picture
from moestro.cli.page import drawn, framed, save
from moestro.cli.routing_pictures import routing_pictures
from moestro.cli.verify_charts import Picture
from moestro.cli.verify_figures import (
    REJECT_GATE,
    VERDICT_WORDS,
    WHOLE_RANGE,
    domains,
    limits_of,
    names,
    nats,
    percent,
    plain,
    ranked,
    remarks,
    rows,
)
from moestro.findings import Finding
from moestro.routing.paired import PairedRouting
from moestro.verify.verdict import Verification

_STYLE = """
.badge { display: inline-block; padding: .1rem .6rem; border-radius: .3rem; color: #fff;
         font-weight: 700; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.pass { background: #1b6e3c; } .warn { background: #8a5a00; } .fail { background: #a4161a; }
.unknown { background: #555; } .info, .ok { background: #0b5c8a; }
.finding { border-left: 4px solid #bbb; padding: .1rem .8rem; margin: .7rem 0; }
.finding .badge { font-size: .8rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .92rem; }
th, td { text-align: right; padding: .18rem .6rem; border-bottom: 1px solid #ddd;
         overflow-wrap: normal; white-space: nowrap; }
td:first-child { text-align: left; padding-left: 0; white-space: pre-wrap;
         min-width: 10.5rem; }
th:first-child { text-align: left; padding-left: 0; }
thead th { border-bottom: 2px solid #777; }
figure { margin: 1.4rem 0 0; break-inside: avoid; } h3 { font-size: 1rem; margin: 0; }
figcaption { color: #444; margin: 0 0 .3rem; } summary { cursor: pointer; margin-top: 1rem; }
h2 { break-after: avoid; }
"""


def write_page(found: Verification, path: Path) -> None:
    """Writes the page; it opens without a network.

    Raises:
        MoestroError: it cannot be written.
    """
    save(page_of(found), path, what="report", option="--report")


def page_of(found: Verification) -> str:
    """The whole page."""
    candidate, reference = names(found)
    pictures = _Pictures()
    parts = [
        f"<h1>{escape(candidate)}</h1>",
        f"<p>against {escape(reference)}</p>",
        f'<p><span class="badge {found.verdict}">{str(found.verdict).upper()}</span> '
        f"{escape(VERDICT_WORDS[found.verdict])}</p>",
        *_findings([*ranked(found), *remarks(found)]),
        *_figures(found),
        *_output(found, pictures),
        *_routing(found, pictures),
        "<h2>What was run</h2>",
        *_what_was_run(found),
    ]
    return framed(f"{candidate}: verify", parts, _STYLE)


class _Pictures:
    """The first one brings the library."""

    def __init__(self) -> None:
        self._first = True

    def drawn(self, pictures: Iterable[Picture]) -> Iterator[str]:
        for picture in pictures:
            terms = ""
            if picture.terms:
                terms = f" Terms: <i>{escape(', '.join(picture.terms))}</i>."
            says = escape(f"{picture.title}. {picture.says}")
            yield (
                f"<figure><h3>{escape(picture.title)}</h3>"
                f"<figcaption>{escape(picture.reading)} {escape(picture.says)}{terms}</figcaption>"
                f'<div role="img" aria-label="{says}">'
                f"{drawn(picture.figure, first=self._first)}</div></figure>"
            )
            self._first = False


def _findings(findings: list[Finding]) -> Iterator[str]:
    yield "<h2>Findings</h2>"
    if not findings:
        yield "<p>None.</p>"
    for finding in findings:
        lines = [
            f'<p><span class="badge {finding.severity}">{finding.severity}</span> '
            f"<b>{escape(finding.title)}</b> <code>{escape(finding.code)}</code></p>"
        ]
        if finding.evidence:
            lines.append(f"<p>{escape(finding.evidence).replace(chr(10), '<br>')}</p>")
        if finding.fix:
            lines.append(f"<p>What to do: {escape(finding.fix)}</p>")
        yield f'<div class="finding">{"".join(lines)}</div>'


def _figures(found: Verification) -> Iterator[str]:
    yield "<h2>Figures</h2>"
    figures = rows(found)
    if not figures:
        yield "<p>Nothing was measured: the two could not be run side by side.</p>"
        return
    yield _table(
        ["", "value", "95 % range", "warn", "fail", "judged"],
        [
            [row.name, row.value, row.interval, row.warn, row.fail, str(row.judged or "")]
            for row in figures
        ],
    )
    yield f"<p>{WHOLE_RANGE} Divergences are in nats. {REJECT_GATE}</p>"


def _output(found: Verification, pictures: _Pictures) -> Iterator[str]:
    if found.divergence is None:
        return
    yield "<h2>Answers</h2>"
    if found.divergence.kld_max == 0:
        yield "<p>Every token's divergence is 0, so there is no distribution to draw.</p>"
    yield from pictures.drawn(output_pictures(found.divergence, found.routing))
    if found.repetition is not None:
        yield from pictures.drawn([repetition_picture(found.repetition)])


def _routing(found: Verification, pictures: _Pictures) -> Iterator[str]:
    if found.divergence is None:
        return
    yield "<h2>Experts</h2>"
    if found.routing is None:
        dense = any(finding.code == "dense-model" for finding in found.findings)
        why = "this model has no experts" if dense else "the two do not have the same experts"
        yield f"<p>There are no pictures of routing: {why}.</p>"
        return
    yield "<p>docs/concepts/routing.md explains the terms that are named under each picture.</p>"
    yield from pictures.drawn(routing_pictures(found.routing, found.policy))
    yield _by_layer(found.routing)


def _by_layer(found: PairedRouting) -> str:
    """The pictures' numbers, for those who cannot see them and for those who want them."""
    lines = [
        [
            str(layer.layer),
            percent(layer.overlap.value),
            percent(layer.gate_mass_overlap.value) if layer.gate_mass_overlap else "",
            nats(layer.router_kl.value) if layer.router_kl else "",
            plain(layer.effective_experts),
            plain(layer.effective_experts_reference),
            plain(layer.max_load),
            percent(layer.load_shift),
            f"{len(layer.dead_only_in_candidate)}",
        ]
        for layer in found.layers
    ]
    heads = ["layer", "same experts", "gate mass", "router KL", "effective experts",
             "of the reference", "max load", "load shift", "experts lost"]  # fmt: skip
    return f"<details><summary>All layers in numbers</summary>{_table(heads, lines)}</details>"


def _table(heads: list[str], lines: list[list[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>" for cells in lines
    )
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _what_was_run(found: Verification) -> Iterator[str]:
    if found.tokens:
        scored = f", of which {found.divergence.tokens:,} were scored" if found.divergence else ""
        yield f"<p>{found.tokens:,} tokens of {escape(', '.join(domains(found)))}{scored}.</p>"
    stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in found.seconds.items())
    yield f"<p>Limits: {escape(limits_of(found))}. Time: {escape(stages) or 'none'}.</p>"
