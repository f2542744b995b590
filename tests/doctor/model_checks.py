"""The checks of the area model, in the order of a report."""

from moestro.doctor.checks import (
    architecture,
    complete,
    context_length,
    gating,
    low_bit,
    mtp,
    readable,
    router_precision,
    template_present,
    template_right,
    template_safe,
    tokenizer,
    verdict,
)

MODEL = tuple(
    module.CHECK
    for module in (
        readable, complete, architecture, router_precision, gating, mtp, low_bit, verdict,
        context_length, tokenizer, template_present, template_safe, template_right,
    )
)  # fmt: skip
