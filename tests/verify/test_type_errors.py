"""The table of types' errors, measured again by ggml's own quantizers."""

from __future__ import annotations

import numpy as np
import pytest

from moestro.engine.llama_cpp.row_samples import NOT_SAMPLED
from moestro.model.ggml_types import BY_NAME
from moestro.verify.type_errors import TYPE_ERRORS, explained_error
from tests.verify.quantized import decode, encode

SLOW = {"IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_S", "IQ1_M"}
"""ggml searches their grids for half a minute before the first row."""
MEASURED = [name for name, error in TYPE_ERRORS.items() if error and name not in SLOW]


@pytest.mark.parametrize("name", MEASURED)
def test_the_error_is_what_ggml_makes(name: str) -> None:
    values = (0.02 * np.random.default_rng(5).standard_normal((8, 2048))).astype(np.float32)
    back = decode(encode(values, name), name, 2048)
    error = np.linalg.norm(values - back) / np.linalg.norm(values)
    assert error == pytest.approx(TYPE_ERRORS[name], rel=0.08)


def test_every_type_of_a_file_has_an_error() -> None:
    assert set(TYPE_ERRORS) == set(BY_NAME) - set(NOT_SAMPLED)


def test_errors_add_up_as_squares() -> None:
    assert explained_error("F32", "F32") == 0
    assert explained_error("F32", "Q4_0") == TYPE_ERRORS["Q4_0"]
    both = TYPE_ERRORS["Q4_1"] ** 2 + TYPE_ERRORS["Q8_0"] ** 2
    assert explained_error("Q4_1", "Q8_0") == pytest.approx(both**0.5)
