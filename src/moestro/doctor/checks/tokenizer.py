"""Does text survive the tokenizer, and does an answer end?"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from moestro.doctor.case import Case, ModelCase
from moestro.doctor.check import Check, ok, unknown
from moestro.doctor.template.report import TemplateReport
from moestro.engine.tokenizer import RoundTrip, TokenizerReport
from moestro.errors import EngineStartFailed, MoestroError
from moestro.findings import Finding, Severity
from moestro.words import shown

_AGAIN = "Take a file that was converted again from the original tokenizer."
_NO_TOKENIZER = (None, "none", "no_vocab")
_ORDER = (Severity.INFO, Severity.WARN, Severity.FAIL)
_ENGLISH = ("plain text", "numbers", "code")


def run(case: Case) -> Iterator[Finding]:
    model = case.model
    if model is None:
        return
    if model.spec.format == "gguf" and model.spec.tokenizer in _NO_TOKENIZER:
        yield Finding(
            Severity.FAIL,
            "tokenizer-missing",
            "The file has no tokenizer, so no text can be given to the model",
            f"tokenizer.ggml.model is {shown(model.spec.tokenizer or 'absent')}",
            _AGAIN,
        )
        return
    report = model.tokenizer
    if isinstance(report, MoestroError):
        yield _not_looked_at(report)
    if not isinstance(report, TokenizerReport):
        return
    found = [
        *_not_faithful(report),
        *_cutting(report),
        *_split_marks(model, report),
        *_never_ends(model, report),
    ]
    yield from found
    if not any(finding.severity is not Severity.INFO for finding in found):
        ends = _listed(report.ends[:4])
        came_back = sum(trip.text == trip.came_back for trip in report.round_trips)
        yield ok(
            "tokenizer",
            "Text survives the tokenizer, and answers end",
            f"{report.vocabulary:,} tokens; {came_back} of {len(report.round_trips)} texts came "
            f"back as they were; an answer ends with {ends}",
        )


def _not_looked_at(error: MoestroError) -> Finding:
    if error.code == EngineStartFailed.code:
        return Finding(
            Severity.FAIL,
            "tokenizer-refused",
            "The engine cannot use the file's tokenizer",
            error.sentence,
            error.hint or _AGAIN,
        )
    return unknown(
        "tokenizer-not-tried",
        "The tokenizer was not tried",
        error.sentence,
        error.hint or "Run moestro doctor again.",
    )


def _not_faithful(report: TokenizerReport) -> Iterator[Finding]:
    """One finding for all texts, as bad as the worst of them."""
    changed = [(trip, _how_bad(trip)) for trip in report.round_trips if trip.text != trip.came_back]
    if not changed:
        return
    worst, severity = max(changed, key=lambda pair: _ORDER.index(pair[1]))
    kinds = ", ".join(trip.kind for trip, _ in changed)
    yield Finding(
        severity,
        "tokenizer-not-faithful",
        "Text does not come back from the tokenizer as it went in"
        if severity is not Severity.INFO
        else "The tokenizer folds blanks or forms of letters",
        f"{kinds}; {_shown(worst.text)} became {_shown(worst.came_back)}",
        _AGAIN,
    )


def _how_bad(trip: RoundTrip) -> Severity:
    """English and code that are lost leave nothing to work with; other scripts may be beyond a
    model; code without its line ends and indents is another program."""
    if _folded(trip.text) == _folded(trip.came_back):
        return Severity.WARN if trip.kind == "code" else Severity.INFO
    return Severity.FAIL if trip.kind in _ENGLISH else Severity.WARN


def _folded(text: str) -> str:
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text)).casefold()


def _listed(pieces: Iterable[str]) -> str:
    """Tokens are foreign texts: they may hold anything."""
    return ", ".join(shown(piece) for piece in pieces)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")


def _cutting(report: TokenizerReport) -> Iterator[Finding]:
    if not report.pre_known:
        yield Finding(
            Severity.WARN,
            "pretokenizer-missing",
            "The file does not say how text is cut before it is looked up",
            "tokenizer.ggml.pre is absent; the engine falls back to a rule that no current model "
            "was trained with",
            f"Answers get worse, most of all with numbers and code. {_AGAIN}",
        )


def _split_marks(model: ModelCase, report: TokenizerReport) -> Iterator[Finding]:
    """A mark in the vocabulary that is not found there, or one that is foreign to a vocabulary with
    marks of the same kind. Some models were trained on marks that are plain text to them
    (`[INST]`, Zephyr's `<|user|>`): nothing is said of those."""
    texts = _turns_of(model)
    split = [
        mark
        for mark, one in report.single.items()
        if not one
        and (
            mark in report.listed
            or (report.barred and mark.startswith("<|") and any(mark in text for text in texts))
        )
    ]
    if split:
        yield Finding(
            Severity.WARN,
            "template-marks-split",
            "Marks of the chat template are not tokens of their own",
            _listed(split[:8]),
            "The model sees them as letters, and does not know where a turn ends: take a template "
            "and a tokenizer that belong together.",
        )


def _turns_of(model: ModelCase) -> list[str]:
    if not isinstance(model.template, TemplateReport):
        return []
    return [r.text for r in model.template.renderings if r.conversation in ("plain", "turns")]


def _never_ends(model: ModelCase, report: TokenizerReport) -> Iterator[Finding]:
    if not report.ends:
        yield Finding(
            Severity.FAIL,
            "answer-never-ends",
            "No token ends an answer",
            "tokenizer.ggml.eos_token_id is absent, and no token has a name that engines know",
            f"Answers would run on to their limit. {_AGAIN}",
        )
        return
    end = report.answer_end
    written = (model.spec.chat_template or "", *_turns_of(model))
    # Some models write one mark into the history and end with another one (gpt-oss): then the
    # template knows that one too.
    known = any(piece and piece in text for piece in report.ends for text in written)
    if end is not None and end.special and not end.ends and not known:
        yield Finding(
            Severity.WARN,
            "answer-never-ends",
            "The mark that ends a turn in the chat template does not end an answer",
            f"the template writes {shown(end.piece)} after an answer; answers end with "
            f"{_listed(report.ends[:4])}",
            f"Answers may run on into an invented question. {_AGAIN}",
        )


CHECK = Check("tokenizer", "model", "Does text survive the tokenizer, and do answers end?", run)
