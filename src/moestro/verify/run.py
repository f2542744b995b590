"""Runs the same text through a candidate and its reference, and judges what comes out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from moestro.engine.llama_cpp.capture import Capture, Vocabulary
from moestro.engine.llama_cpp.refusal import UNAVAILABLE
from moestro.errors import EngineError, EngineStartFailed
from moestro.findings import Finding, Severity
from moestro.routing.paired import PairedRouting, PairedTally
from moestro.units import format_bytes
from moestro.verify.corpus import MOST_TEXT_BYTES, Passage, windows
from moestro.verify.divergence import DivergenceTally
from moestro.verify.fingerprint import Fingerprint, take_fingerprint
from moestro.verify.judge import judge
from moestro.verify.policy import Policy
from moestro.verify.recording import Recording
from moestro.verify.renumbered import in_reference_numbers, new_numbers
from moestro.verify.repetition import compare_repetition
from moestro.verify.sides import (
    FIRST_SCORED,
    LiveReference,
    ReferenceSide,
    RoutedExperts,
    chunks_of,
    fed,
    generate,
    sampled,
    scored_logits,
)
from moestro.verify.static import check_static
from moestro.verify.subject import Options, Progress, Subject, reading
from moestro.verify.verdict import Verification

CANNOT_COMPARE = frozenset({"architecture-differs", "vocabulary-differs"})
"""Findings after which the reference's tokens mean nothing to the candidate."""


def verify(
    candidate: Subject,
    reference: Subject | Recording,
    passages: Sequence[Passage],
    policy: Policy,
    options: Options,
    progress: Progress = lambda _what, _done, _all: None,
) -> Verification:
    """Compares `candidate` with a reference that runs beside it, or with a recording of one.

    A recording brings its own text: `passages` are not used then. An interrupt (Ctrl-C) ends the
    measurement; what was seen by then is judged, and a finding says so.

    Raises:
        MoestroError: the *reference* cannot be read or run, or the text is too short. What is wrong
            with the candidate is a finding, not an error.
    """
    work = _Work(candidate, reference, policy, options, progress)
    if not isinstance(reference, Recording):
        work.findings += cut_texts(passages)
        passages = windows(passages, options.tokens)
    with ExitStack() as stack:
        return work.done(stack, passages)


def cut_texts(passages: Sequence[Passage]) -> list[Finding]:
    """Files that were too long to be read to their end."""
    names = [passage.domain for passage in passages if passage.cut]
    if not names:
        return []
    evidence = f"the first {format_bytes(MOST_TEXT_BYTES)} of {', '.join(names)}"
    return [
        Finding(Severity.INFO, "text-cut", "Of a long text only the beginning is used", evidence)
    ]


@dataclass(slots=True)
class _Work:
    candidate: Subject
    reference: Subject | Recording
    policy: Policy
    options: Options
    progress: Progress
    findings: list[Finding] = field(default_factory=list)
    prints: tuple[Fingerprint, Fingerprint] | None = None
    numbers: dict[int, NDArray[np.int32]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    domains: list[str] = field(default_factory=list)
    divergence: DivergenceTally = field(default_factory=DivergenceTally)
    routing: PairedTally | None = None

    def done(self, stack: ExitStack, passages: Sequence[Passage]) -> Verification:
        if self.options.files:
            with self.stage("files"):
                self.compare_files()
        if any(finding.code in CANNOT_COMPARE for finding in self.findings):
            return self.verification()
        with self.stage("load"):
            side = self.reference_side(stack, passages)
            capture = self.candidate_capture(stack)
        if capture is None or not self.fits_together(capture, side, passages):
            return self.verification()
        try:
            with self.stage("text"):
                self.read_text(capture, side)
            with self.stage("generations"):
                generated = self.generate(capture, side)
        except _CandidateFailed as failed:
            self.findings.append(_engine_refused(failed.error))
            generated = None
        except KeyboardInterrupt:
            if not self.tokens:
                raise
            self.findings.append(_interrupted(self.tokens))
            generated = None
        return self.verification(generated)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(time.perf_counter() - begun, 3)

    def compare_files(self) -> None:
        reference = self.reference
        if isinstance(reference, Recording):
            kept = reference.fingerprint()
        else:
            kept = take_fingerprint(
                reference.model, progress=reading(self.progress, reference.name)
            )
        found = take_fingerprint(
            self.candidate.model, progress=reading(self.progress, self.candidate.name)
        )
        self.prints = kept, found
        self.findings += check_static(kept, found)
        if experts := RoutedExperts.of(self.candidate.model):
            self.numbers = new_numbers(kept, found, experts.count)

    def reference_side(self, stack: ExitStack, passages: Sequence[Passage]) -> ReferenceSide:
        reference = self.reference
        if isinstance(reference, Recording):
            return reference
        self.progress(f"loading {reference.name}", 0, 0)
        capture = stack.enter_context(Capture(reference.model, reference.settings))
        return LiveReference(
            capture,
            chunks_of(capture, passages, self.options),
            RoutedExperts.of(reference.model),
            prompts=self.options.generations,
            generated_tokens=self.options.generated_tokens,
        )

    def candidate_capture(self, stack: ExitStack) -> Capture | None:
        self.progress(f"loading {self.candidate.name}", 0, 0)
        try:
            with _candidate():
                return stack.enter_context(Capture(self.candidate.model, self.candidate.settings))
        except _CandidateFailed as failed:
            self.findings.append(_engine_refused(failed.error))
            return None

    def fits_together(
        self, capture: Capture, side: ReferenceSide, passages: Sequence[Passage]
    ) -> bool:
        """Whether the reference's tokens are tokens of the candidate; findings say what differs."""
        ours, theirs = capture.vocabulary, side.vocabulary
        if ours.tokens != theirs.tokens:
            self.findings.append(
                Finding(
                    Severity.FAIL,
                    "vocabulary-differs",
                    "The two models have different vocabularies",
                    f"{ours.tokens:,} tokens, the reference {theirs.tokens:,}",
                    "Compare a file with the model it was made from.",
                )
            )
            return False
        if not any(finding.code == "tokenizer-differs" for finding in self.findings):
            with _candidate():
                differs = _tokenizers_differ(capture, side, passages)
            if differs is not None:
                self.findings.append(
                    Finding(
                        Severity.FAIL,
                        "tokenizer-differs",
                        "The two files do not make the same tokens of a text",
                        differs,
                        "Take a file that was converted with the model's own tokenizer.",
                    )
                )
        experts, theirs_experts = RoutedExperts.of(self.candidate.model), side.experts
        if experts is None and theirs_experts is None:
            self.findings.append(
                Finding(
                    Severity.INFO,
                    "dense-model",
                    "This model has no experts, so there is no routing to compare",
                )
            )
        elif experts and theirs_experts and experts.count == theirs_experts.count:
            self.routing = PairedTally(
                experts.count,
                theirs_experts.used,
                theirs_experts.gating,
                experts.gating,
                experts.used,
            )
        return True

    def read_text(self, capture: Capture, side: ReferenceSide) -> None:
        for number, one in enumerate(side.passes()):
            self.progress("comparing", number, side.chunks)
            with _candidate():
                captured = capture.chunk(fed(one.chunk, side.vocabulary), FIRST_SCORED)
            chunk = one.chunk
            self.divergence.add(chunk.index, chunk.domain, one.compare(scored_logits(captured)))
            if self.routing is not None:
                ours = in_reference_numbers(sampled(captured), self.numbers)
                for block, theirs in one.routers.items():
                    if block in ours:
                        self.routing.add(block, chunk.index, chunk.domain, theirs, ours[block])
            self.tokens += len(chunk.tokens)
            if chunk.domain not in self.domains:
                self.domains.append(chunk.domain)
        self.progress("comparing", side.chunks, side.chunks)

    def generate(
        self, capture: Capture, side: ReferenceSide
    ) -> tuple[list[list[int]], list[list[int]]] | None:
        prompts = side.prompts[: self.options.generations]
        if not prompts:
            return None
        self.progress("continuing texts", 0, 2)
        theirs = side.generations()[: len(prompts)]
        self.progress("continuing texts", 1, 2)
        with _candidate():
            ours = generate(capture, prompts, side.generated_tokens)
        return ours, theirs

    def unseen_routing(self, routing: PairedRouting | None) -> list[Finding]:
        """Blocks with experts whose routers could not be watched, in text that was read."""
        experts = self.candidate.model.experts
        seen = len(routing.layers) if routing is not None else 0
        if experts is None or not self.tokens or seen >= experts.layers:
            return []
        return [
            Finding(
                Severity.INFO if seen else Severity.UNKNOWN,
                "routing-unseen",
                "The routers of some layers could not be compared",
                f"{seen} of {experts.layers} layers with experts were",
                "The engine builds this model's routing in another way, or the reference has other "
                "experts.",
            )
        ]

    def verification(
        self, generated: tuple[list[list[int]], list[list[int]]] | None = None
    ) -> Verification:
        divergence = self.divergence.result() if self.tokens else None
        routing: PairedRouting | None = None
        if self.routing is not None and self.routing.tokens:
            routing = self.routing.result()
        repetition = compare_repetition(*generated) if generated is not None else None
        findings = list(self.findings)
        findings += self.unseen_routing(routing)
        if divergence is not None:
            findings += judge(divergence, routing, repetition, self.policy)
        kept, found = self.prints or (None, None)
        reference = self.reference
        return Verification(
            candidate=self.candidate.compared(found),
            reference=reference.compared
            if isinstance(reference, Recording)
            else reference.compared(kept),
            findings=tuple(findings),
            policy=self.policy,
            tokens=self.tokens,
            domains=tuple(self.domains),
            divergence=divergence,
            routing=routing,
            repetition=repetition,
            seconds=self.seconds,
        )


class _CandidateFailed(Exception):
    """The candidate's engine, not the reference's, gave up."""

    def __init__(self, error: EngineError) -> None:
        super().__init__(error.sentence)
        self.error = error


@contextmanager
def _candidate() -> Iterator[None]:
    """What the engine says of the candidate is a finding; what ended it from outside is not."""
    try:
        yield
    except EngineStartFailed as error:
        if error.code == UNAVAILABLE:
            raise
        raise _CandidateFailed(error) from error


def _tokenizers_differ(
    capture: Capture, side: ReferenceSide, passages: Sequence[Passage]
) -> str | None:
    """In which way, if they do. A stored reference has its flags, but no text to cut anew."""
    ours, theirs = capture.vocabulary, side.vocabulary
    if _beginning(ours) != _beginning(theirs):
        return f"texts begin with {_beginning(ours)}, in the reference with {_beginning(theirs)}"
    if isinstance(side, LiveReference) and (domains := side.differing(capture, passages)):
        return f"other tokens in {', '.join(domains)}"
    return None


def _beginning(vocabulary: Vocabulary) -> str:
    return f"token {vocabulary.bos}" if vocabulary.add_bos else "no special token"


def _interrupted(tokens: int) -> Finding:
    return Finding(
        Severity.UNKNOWN,
        "interrupted",
        "The comparison was stopped before its end",
        f"after {tokens:,} tokens of text",
        "Run it again to the end before you rely on it.",
    )


def _engine_refused(error: EngineError) -> Finding:
    return Finding(
        Severity.FAIL,
        "engine-refused",
        "The engine does not run this file",
        error.sentence,
        error.hint,
    )
