"""Verifications without a model: random logits and routers, tallied as `verify` tallies them."""

from __future__ import annotations

import numpy as np

from moestro.findings import Finding, Severity
from moestro.routing.paired import PairedTally
from moestro.verify.divergence import DivergenceTally, compare_logits
from moestro.verify.policy import built_in
from moestro.verify.repetition import compare_repetition
from moestro.verify.verdict import Compared, Verification
from tests.routing.simulate import route

DOMAINS = ("story", "code", "german")
HOSTILE = "</script><script>alert('x')</script>\x1b[31m"
DENSE = Finding(Severity.INFO, "dense-model", "This model has no experts")


def verification(
    *,
    layers: int = 2,
    experts: int = 8,
    noise: float = 0.2,
    domains=DOMAINS,
    name: str = "small-Q4_K_M.gguf",
    findings=(),
    chunks: int = 9,
    not_finite: bool = False,
) -> Verification:
    """`layers` 0 is a dense model; `noise` is how far the candidate's logits are off; all of its
    output is NaN if `not_finite`."""
    generator = np.random.default_rng(7)
    divergence = DivergenceTally()
    routing = PairedTally(experts, min(2, experts), "softmax")
    taste = generator.normal(size=(len(domains), layers, experts))
    for chunk in range(chunks):
        kind = chunk % len(domains)
        logits = generator.normal(0, 3, size=(24, 40))
        off = logits + noise * generator.normal(size=logits.shape)
        if not_finite:
            off[:] = np.nan
        targets = generator.integers(0, 40, 24)
        found = compare_logits(logits.astype(np.float32), off.astype(np.float32), targets)
        divergence.add(chunk, domains[kind], found)
        for layer in range(layers):
            scores = taste[kind, layer] + generator.normal(size=(48, experts))
            moved = scores + noise * generator.normal(size=scores.shape)
            before, after = route(scores, min(2, experts)), route(moved, min(2, experts))
            routing.add(layer, chunk, domains[kind], before, after)
    texts = generator.integers(0, 9, size=(2, 6, 40)).tolist()
    return Verification(
        candidate=Compared(name, "test", "Q4_K_M", 1),
        reference=Compared("small-F16.gguf", "test", "F16", 2),
        findings=tuple(findings),
        policy=built_in(),
        tokens=48 * chunks,
        domains=tuple(domains),
        divergence=divergence.result(),
        routing=routing.result() if layers else None,
        repetition=compare_repetition(*texts),
        seconds={"files": 0.1, "text": 2.0},
    )


def refused() -> Verification:
    """Two models that could not be compared."""
    finding = Finding(
        Severity.FAIL,
        "architecture-differs",
        "The reference is a model of another architecture",
        "llama in the reference, test here",
        "Take a reference that was made from the same model.",
    )
    return Verification(
        candidate=Compared("small.gguf", "test", None, None),
        reference=Compared("other.gguf", "llama", None, None),
        findings=(finding,),
        policy=built_in(),
        seconds={"files": 0.1},
    )
