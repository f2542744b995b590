"""Can the model file be read at all?"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok, unknown
from moestro.errors import MoestroError
from moestro.findings import Finding, Severity
from moestro.units import format_bytes, format_count


def run(case: Case) -> Iterator[Finding]:
    error = case.model_error
    if error is not None and _lacks_config(error):
        # Nothing need be wrong with the weights; what they are is told elsewhere.
        yield unknown(
            error.code,
            "There is no model to look at",
            error.sentence,
            error.hint or "Give the path of a GGUF file, or a folder with a config.json.",
        )
    elif error is not None:
        yield Finding(
            Severity.FAIL,
            error.code,
            "The model cannot be read",
            error.sentence,
            error.hint or "Get the file again from its source.",
        )
    elif case.model is not None:
        spec = case.model.spec
        facts = (
            spec.name,
            spec.architecture,
            spec.quantization,
            f"{format_count(spec.parameters)} parameters",
            format_bytes(spec.tensor_bytes),
        )
        yield ok("readable", "The model's header is sound", ", ".join(filter(None, facts)))


def _lacks_config(error: MoestroError) -> bool:
    from moestro.model.hugging_face import NO_CONFIG  # costs time that most runs need not spend

    return error.code == NO_CONFIG


CHECK = Check("readable", "model", "Can the model file be read at all?", run)
