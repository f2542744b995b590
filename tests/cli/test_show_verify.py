"""A verification in the terminal: 80 columns, no colour needed, nothing a terminal would obey."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from moestro.cli.show_verify import show_verification
from moestro.cli.verify_figures import nats, percent, rows
from moestro.findings import Finding, Severity
from moestro.routing.interval import Interval
from moestro.verify.policy import Limit, Policy, built_in
from tests.cli.verifications import DENSE, HOSTILE, refused, verification

LONG = "Qwen3-30B-A3B-Instruct-2507-UD-Q4_K_XL-00001-of-00003.gguf"


def printed(found, width: int = 80) -> str:
    file = io.StringIO()
    show_verification(found, Console(file=file, width=width, highlight=False))
    return file.getvalue()


def finding(severity: Severity, title: str, **more: str) -> Finding:
    return Finding(severity, title.lower().replace(" ", "-"), title, **more)


def limits(**bounds) -> Policy:
    return Policy(
        "of a test",
        {
            metric: Limit(metric, worse, warn, fail, "code", "title", "why", "source", "fix")
            for metric, (worse, warn, fail) in bounds.items()
        },
    )


CASES = {
    "mixture": lambda: verification(),
    "dense": lambda: verification(layers=0, findings=[DENSE]),
    "single-layer": lambda: verification(layers=1, experts=4),
    "many-layers": lambda: verification(layers=97, experts=4, chunks=3, name=LONG),
    "one-chunk": lambda: verification(chunks=1, domains=("text",)),
    "nan": lambda: verification(not_finite=True),
    "identical": lambda: verification(noise=0.0),
    "hostile": lambda: replace(
        verification(
            name=HOSTILE * 9,
            domains=(HOSTILE, "[bold]x"),
            findings=[finding(Severity.FAIL, HOSTILE, evidence=HOSTILE * 200, fix="a\x1b[2Jb")],
        ),
        policy=replace(built_in(), name=HOSTILE),
    ),
    "refused": refused,
}


@pytest.mark.parametrize("case", CASES)
def test_it_reads_at_80_columns_and_names_the_verdict(case: str) -> None:
    found = CASES[case]()
    text = printed(found)
    assert text.startswith(str(found.verdict).upper() + "  ")
    assert max(cell_len(line) for line in text.splitlines()) <= 80
    assert all(character.isprintable() or character == "\n" for character in text)
    assert "nan" not in text.lower()
    assert ("not a ranking" in text) is (found.divergence is not None)


def test_the_three_worst_findings_come_first() -> None:
    given = [
        finding(Severity.WARN, "Third"),
        finding(Severity.INFO, "Remark"),
        finding(Severity.UNKNOWN, "Second"),
        finding(Severity.FAIL, "First", evidence="the numbers", fix="the cure"),
        finding(Severity.WARN, "Fourth"),
    ]
    text = printed(verification(findings=given))
    places = [text.index(word) for word in ("FAIL", "First", "Second", "Third", "and 1 more")]
    assert places == sorted(places)
    assert "the numbers" in text
    assert "the cure" in text
    assert "Remark" in text
    assert "Fourth" not in text


def test_a_pass_says_why() -> None:
    found = replace(
        verification(),
        policy=limits(
            kld_mean=("above", 0.1, 0.5),
            top1_agreement=("below", 0.25, None),
            gate_mass_overlap=("below", None, 0.05),
        ),
    )
    text = " ".join(printed(found, width=200).split())
    assert found.divergence is not None
    mean = found.divergence.kld_mean
    assert mean is not None
    assert mean.low is not None
    assert f"mean KL divergence {nats(mean.value)} nats ({nats(mean.low)} to" in text
    assert "warn above 0.1, fail above 0.5" in text
    assert "); warn below 25%" in text
    assert "of the gate weights go to the same experts" in text
    assert "; fail below 5%" in text


def test_figures_are_judged_as_a_whole_range() -> None:
    """0.3 is beyond the limit, its range is not; 0.4 is beyond with all its range."""
    found = verification(layers=0)
    assert found.divergence is not None
    assert found.repetition is not None
    found = replace(
        found,
        policy=limits(
            kld_mean=("above", 0.25, None),
            perplexity_ratio=("above", 0.25, None),
            repetition_excess=("above", 0.25, 0.35),
        ),
        divergence=replace(
            found.divergence,
            kld_mean=Interval(0.3, 0.2, 0.4),
            perplexity_ratio=Interval(0.3, None, None),
        ),
        repetition=replace(found.repetition, excess=Interval(0.4, 0.36, 0.5)),
    )
    judged = {row.name: row for row in rows(found)}
    assert judged["KL divergence, mean"].judged is Severity.OK
    assert judged["perplexity ratio"].judged is Severity.WARN
    assert judged["perplexity ratio"].interval == ""
    assert judged["repetition, excess"].judged is Severity.FAIL
    assert judged["repetition, excess"].fail == "> 35%"
    assert judged["KL divergence, median"].judged is None


def test_the_worst_layer_shows_however_many_there_are() -> None:
    """97 layers in 80 columns: a column stands for two layers, and for the worse of them."""
    found = verification(layers=97, experts=4, chunks=3, noise=0.0)
    assert found.routing is not None
    layers = list(found.routing.layers)
    layers[51] = replace(layers[51], overlap=Interval(0.0, None, None))
    text = printed(replace(found, routing=replace(found.routing, layers=tuple(layers))))
    assert "layers 0 to 96, the worst of each 2 (▁ 0%, █ 100%)" in text
    assert "█" * 25 + "▁" + "█" * 23 in text


def test_a_dense_model_has_no_experts_to_show() -> None:
    text = printed(verification(layers=0, findings=[DENSE]))
    assert "PASS" in text
    assert DENSE.title in text
    assert "same experts" not in text
    assert "perplexity ratio" in text


def test_models_that_could_not_be_compared_say_why() -> None:
    text = printed(refused())
    assert "another architecture" in text
    assert "Nothing was measured" in text
    assert "perplexity" not in text


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0, "0.0000"),
        (0.00001, "<0.0001"),
        (0.01234, "0.0123"),
        (0.12345, "0.123"),
        (12.345, "12.35"),
        (1e304, "1e+304"),
        (float("inf"), "?"),
    ],
)
def test_numbers_have_sensible_digits(value: float, words: str) -> None:
    assert nats(value) == words
    assert percent(0.98765) == "98.8%"
