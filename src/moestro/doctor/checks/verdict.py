"""Has `moestro verify` compared this file with what it was made from?"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.doctor.checks.low_bit import LOW_BITS, expert_bits
from moestro.findings import Finding, Severity
from moestro.verify.stored import StoredVerdict

_VERIFY = "moestro verify MODEL --reference REF"


def run(case: Case) -> Iterator[Finding]:
    if case.model is None:
        return
    verdict = case.model.verdict
    if verdict is None:
        bits = expert_bits(case.model.spec)
        doubtful = bits is not None and bits < LOW_BITS
        yield Finding(
            Severity.WARN if doubtful else Severity.INFO,
            "not-verified",
            "Nobody compared this file with what it was made from",
            f"no verdict is kept here, and the experts have {bits:.2f} bits per weight"
            if doubtful
            else "no verdict is kept here",
            f"Compare it: {_VERIFY}.",
        )
    elif verdict.verdict == "pass":
        yield ok("verdict", "moestro verify passed this file", _facts(verdict))
    else:
        failed = verdict.verdict == "fail"
        yield Finding(
            Severity.FAIL if failed else Severity.WARN,
            "verify-failed" if failed else "verify-warned",
            "moestro verify found this file unfit"
            if failed
            else "moestro verify had doubts about this file",
            "; ".join([*(finding.title for finding in verdict.findings[:3]), _facts(verdict)]),
            f"Take another quantization, or see the details: {_VERIFY}.",
        )


def _facts(verdict: StoredVerdict) -> str:
    return (
        f"{verdict.tokens:,} tokens against {verdict.reference}, "
        f"{verdict.verified_at.date().isoformat()}"
    )


CHECK = Check("verdict", "model", "Was the file compared with its original?", run, quick=True)
