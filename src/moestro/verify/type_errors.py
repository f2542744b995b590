"""How much error a tensor type explains: the relative RMS error of normally distributed rows.

    ‖x − quantized(x)‖ / ‖x‖

Measured once by ggml's own quantizers (`ggml_quantize_chunk`, 64 rows of 2048 values, even weights
where it wants an importance matrix) and its own way back; `tests/verify/test_type_errors.py` does
that again. Values with heavier tails have larger errors: up to 1.5 times for Laplace and Student's
t with 3 degrees of freedom, 2.2 times with outliers of 20 σ in the same columns, 3 times for the
two-bit IQ types, whose grids cut outliers off. An importance matrix moves error from columns that
matter to others, which costs up to 1.3 times more in all, 2.2 times together with such columns.
"""

from __future__ import annotations

import math

TYPE_ERRORS = {
    "F32": 0.0,
    "F64": 0.0,
    "I8": 0.0,
    "I16": 0.0,
    "I32": 0.0,
    "I64": 0.0,
    "F16": 0.00021,
    "BF16": 0.00165,
    "Q8_0": 0.0054,
    "Q6_K": 0.0178,
    "Q5_K": 0.0362,
    "Q5_1": 0.0380,
    "Q5_0": 0.0429,
    "Q4_K": 0.0717,
    "IQ4_NL": 0.0762,
    "IQ4_XS": 0.0768,
    "Q4_1": 0.0784,
    "Q4_0": 0.0863,
    "NVFP4": 0.1032,
    "MXFP4": 0.1141,
    "Q3_K": 0.1512,
    "IQ3_S": 0.1669,
    "IQ3_XXS": 0.2131,
    "IQ2_S": 0.2651,
    "Q2_K": 0.2975,
    "IQ2_XS": 0.2995,
    "IQ2_XXS": 0.3435,
    "IQ1_S": 0.4869,
    "IQ1_M": 0.5833,
    "Q1_0": 0.6015,
    "Q2_0": 0.7197,
    "TQ1_0": 0.8101,
    "TQ2_0": 0.8101,
}
"""TQ and Q2_0 are made for weights that have three or four values; of others little is left."""


def explained_error(*types: str) -> float:
    """Of the difference between two tensors of these types, made from one: errors that do not know
    of each other add up as squares."""
    return math.hypot(*(TYPE_ERRORS.get(name, 1.0) for name in types))
