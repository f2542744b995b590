"""The page of a verification: whole, by itself, and safe whatever a file calls itself."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from moestro.cli import page as pages
from moestro.cli.routing_pictures import routing_pictures
from moestro.cli.verify_page import page_of, write_page
from moestro.errors import MoestroError
from moestro.findings import Finding, Severity
from moestro.verify.policy import built_in
from tests.cli.verifications import DENSE, HOSTILE, refused, verification

VOID = {"meta", "br"}


class Reader(HTMLParser):
    """Fails on tags that do not close; keeps tags, attributes, and text that is no script."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.scripts if self.open[-1:] in (["script"], ["style"]) else self.words).append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture
def slim(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library, whose 5 MB take a while to parse: what is left is what varies."""
    whole = pages.drawn
    monkeypatch.setattr("moestro.cli.verify_page.drawn", lambda f, *, first: whole(f, first=False))


CASES = {
    # 3 loads, overlap, router KL, effective experts, information, 2 lifts; distribution,
    # divergence and agreement by domain, repetition.
    "mixture": (lambda: verification(), 13),
    "single layer, one domain": (lambda: verification(layers=1, domains=("text",)), 10),
    "dense": (lambda: verification(layers=0, findings=[DENSE]), 4),
    "identical": (lambda: verification(noise=0.0), 12),
    "one chunk": (lambda: verification(chunks=1, domains=("text",)), 10),
    "nan": (lambda: verification(layers=0, not_finite=True), 1),
    "not compared": (refused, 0),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("slim")
def test_every_case_has_its_pictures(case: str) -> None:
    build, pictures = CASES[case]
    found = build()
    reader = read(page_of(found))
    assert reader.tags["figure"] == pictures
    assert reader.tags["figcaption"] == pictures
    said = [value for name, value in reader.attributes if name == "aria-label"]
    assert len(said) == len(set(said)) == pictures
    assert str(found.verdict).upper() in reader.words
    drawings = [script for script in reader.scripts if "Plotly.newPlot" in script]
    assert len(drawings) == pictures
    assert not any("NaN" in script or "Infinity" in script for script in drawings)


def test_a_dense_model_says_why_there_is_no_routing() -> None:
    words = " ".join(read(page_of(verification(layers=0, findings=[DENSE]))).words)
    assert "There are no pictures of routing: this model has no experts." in words


def test_it_opens_without_a_network(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_page(verification(), path)
    page = path.read_text(encoding="utf-8")
    assert page.count("plotly.js v") == 1
    linked = [v for name, v in read(page).attributes if name in ("src", "href", "srcset", "data")]
    assert linked == []
    assert page.index("plotly.js v") < page.index('"heatmap"', page.index("</script>"))


@pytest.mark.usefixtures("slim")
def test_names_from_files_stay_text() -> None:
    hostile = Finding(Severity.FAIL, "x", HOSTILE, HOSTILE + "\n" + HOSTILE, HOSTILE)
    honest = Finding(Severity.FAIL, "x", "t", "e\ne", "f")
    domains = (HOSTILE, '"><img src=x onerror=alert(1)>')
    policy = replace(built_in(), name=HOSTILE)
    page = page_of(
        replace(verification(name=HOSTILE, domains=domains, findings=[hostile]), policy=policy)
    )
    clean = page_of(verification(domains=("one", "two"), findings=[honest]))
    assert "\x1b" not in page
    assert read(page).tags == read(clean).tags
    words = " ".join(read(page).words)
    assert "<script>alert(" in words
    assert "&lt;" not in words  # escaped once, not twice


@pytest.mark.usefixtures("slim")
def test_all_findings_are_there() -> None:
    given = [Finding(Severity.WARN, f"code-{n}", f"Title {n}", f"{n} of 9", "Do.") for n in "12345"]
    words = " ".join(read(page_of(verification(findings=given))).words)
    for n in "12345":
        assert f"Title {n}" in words
        assert f"{n} of 9" in words
        assert f"code-{n}" in words


def test_loads_share_their_colours_and_differences_lie_around_zero() -> None:
    found = verification(layers=3, experts=8)
    assert found.routing is not None
    pictures = {picture.title: picture for picture in routing_pictures(found.routing, built_in())}
    theirs, ours, between = (
        pictures[f"Load of the experts: {whose}"].figure.data[0]
        for whose in ("the reference", "this file", "difference")
    )
    assert (theirs.zmin, theirs.zmax) == (ours.zmin, ours.zmax) == (0, theirs.zmax)
    assert between.zmin == -between.zmax
    for row, layer in zip(ours.z, found.routing.layers, strict=True):
        assert sum(row) == pytest.approx(8, abs=1e-3)  # 1 on average
        assert list(row) == pytest.approx((layer.load * 8).tolist(), rel=1e-4)
    assert between.z[1][2] == pytest.approx(ours.z[1][2] - theirs.z[1][2], abs=1e-3)


def test_an_expert_that_nobody_ever_chose_is_a_gap_not_a_nan() -> None:
    found = verification(layers=1, experts=8, chunks=6)
    assert found.routing is not None
    (layer,) = found.routing.reference.layers
    assert layer.preference is not None
    lift = layer.preference.lift.copy()
    lift[:, 3] = math.nan
    gap = replace(layer, preference=replace(layer.preference, lift=lift))
    profile = replace(found.routing.reference, layers=(gap,))
    pictures = routing_pictures(replace(found.routing, reference=profile), built_in())
    (heat,) = [p.figure for p in pictures if p.title.endswith("layer 0: the reference")]
    assert [row[3] for row in heat.data[0].z] == [None] * 3
    assert "NaN" not in json.dumps(json.loads(heat.to_json()))


def test_a_page_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(MoestroError, match="report could not be written") as raised:
        write_page(refused(), tmp_path / "no" / "such" / "folder.html")
    assert raised.value.hint == "Choose another place with --report."
