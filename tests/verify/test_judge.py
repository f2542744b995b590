from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moestro.findings import Finding, Severity
from moestro.routing.interval import Interval
from moestro.routing.paired import PairedRouting, PairedTally
from moestro.routing.sample import LayerSample, sample
from moestro.verify.divergence import Divergence
from moestro.verify.judge import judge
from moestro.verify.policy import built_in
from moestro.verify.repetition import compare_repetition

POLICY = built_in()
SOUND = Divergence(
    tokens=1000,
    not_finite=0,
    not_finite_reference=0,
    not_finite_candidate=0,
    kld_mean=Interval(0.02, 0.015, 0.03),
    kld_median=0.01,
    kld_p90=0.1,
    kld_p99=0.5,
    kld_max=1.0,
    top1_agreement=Interval(0.93, 0.92, 0.94),
    perplexity=10.1,
    perplexity_reference=10.0,
    perplexity_ratio=Interval(1.01, 1.0, 1.02),
    by_domain={},
    histogram=([], []),
)
EXPERTS, USED = 16, 2


def found(
    divergence: Divergence = SOUND, routing: PairedRouting | None = None
) -> dict[str, Finding]:
    findings = judge(divergence, routing, None, POLICY)
    by_code = {finding.code: finding for finding in findings}
    assert len(by_code) == len(findings)  # one finding a code
    return by_code


def routed(random: np.random.Generator, scores: np.ndarray) -> LayerSample:
    chosen = np.argsort(-scores, axis=1)[:, :USED].astype(np.int32)
    weights = np.exp(np.take_along_axis(scores, chosen, axis=1))
    return sample(scores.astype(np.float32), chosen, weights / weights.sum(axis=1, keepdims=True))


def routing(noise: float, bias: np.ndarray | None = None, layers: int = 3) -> PairedRouting:
    """The reference's logits are normal; the candidate's are those with noise and a bias in the
    first layer."""
    random = np.random.default_rng(5)
    tally = PairedTally(EXPERTS, USED, "softmax")
    for chunk in range(8):
        for layer in range(layers):
            scores = random.normal(size=(256, EXPERTS)) * 2
            other = scores + noise * random.normal(size=scores.shape)
            if bias is not None and layer == 0:
                other = other + bias
            tally.add(layer, chunk, "x", routed(random, scores), routed(random, other))
    return tally.result()


def test_a_sound_file_has_no_findings() -> None:
    assert found() == {}
    assert found(routing=routing(0.05)) == {}


@pytest.mark.parametrize(
    ("change", "code", "severity"),
    [
        ({"kld_mean": Interval(0.3, 0.2, 0.4)}, "divergence-high", Severity.WARN),
        ({"kld_mean": Interval(0.9, 0.6, 1.4)}, "divergence-high", Severity.FAIL),
        ({"kld_mean": Interval(0.9, None, None)}, "divergence-high", Severity.FAIL),
        ({"kld_p99": 5.0}, "divergence-tail", Severity.WARN),
        ({"top1_agreement": Interval(0.4, 0.35, 0.45)}, "top1-agreement-low", Severity.FAIL),
        ({"perplexity_ratio": Interval(1.3, 1.2, 1.4)}, "perplexity-worse", Severity.WARN),
        ({"not_finite_candidate": 3, "not_finite": 3}, "output-not-finite", Severity.FAIL),
        ({"not_finite_reference": 3, "not_finite": 3}, "reference-not-finite", Severity.UNKNOWN),
    ],
)
def test_each_figure_beyond_its_limit(
    change: dict[str, object], code: str, severity: Severity
) -> None:
    (finding,) = found(replace(SOUND, **change)).values()  # type: ignore[arg-type]
    assert (finding.code, finding.severity) == (code, severity)
    assert finding.evidence
    assert finding.fix


def test_a_wide_interval_is_no_alarm() -> None:
    assert found(replace(SOUND, kld_mean=Interval(0.3, 0.01, 0.9))) == {}


def test_routing_that_drifts() -> None:
    findings = found(routing=routing(2.0))
    assert set(findings) == {"routing-drift"}
    # Gate mass over all layers, in the worst one, and the routers' divergence: one finding.
    assert str(findings["routing-drift"].evidence).count("also") == 2


def test_a_router_that_prefers_few_experts() -> None:
    bias = np.zeros(EXPERTS)
    bias[:USED] = 20.0
    findings = found(routing=routing(0.02, bias))
    assert findings["routing-collapse"].severity is Severity.FAIL
    assert "layer 0" in str(findings["routing-collapse"].evidence)
    assert findings["experts-dead"].severity is Severity.FAIL


def test_one_expert_that_is_never_chosen_any_more() -> None:
    bias = np.zeros(EXPERTS)
    bias[7] = -50.0
    findings = found(routing=routing(0.02, bias))
    assert findings["experts-dead"].severity is Severity.WARN
    assert "layer 0: 7" in str(findings["experts-dead"].evidence)


def test_repetition_counts_against_the_reference_only() -> None:
    looping = [[1, 2, 3, 4] * 12 for _ in range(12)]
    random = np.random.default_rng(0)
    varied = [random.integers(0, 10_000, 48).tolist() for _ in range(12)]
    for candidate, reference, expected in (
        (looping, looping, []),
        (varied, looping, []),
        (looping, varied, ["repetition"]),
    ):
        findings = judge(SOUND, None, compare_repetition(candidate, reference), POLICY)
        assert [finding.code for finding in findings] == expected


def test_the_worst_comes_first() -> None:
    findings = judge(
        replace(SOUND, kld_p99=5.0, kld_mean=Interval(0.9, 0.6, 1.4)), None, None, POLICY
    )
    assert [finding.severity for finding in findings] == [Severity.FAIL, Severity.WARN]
