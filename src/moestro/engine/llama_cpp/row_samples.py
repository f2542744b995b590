"""Which rows of a tensor stand for it in a fingerprint, and how a row becomes a few numbers.

Both depend on the tensor's name and shape alone, never on its type or content: the reference's
numbers were taken on another day, of another file, and must be of the same rows.

A row x of n values becomes S(x) = P·x / √d, with a d × n matrix P of random signs, one for all
rows. E‖S(x)‖² = ‖x‖², with a relative standard deviation of √(2/d) (Achlioptas, “Database-friendly
random projections”, 2003). Since S is linear, ‖S(x) − S(y)‖ estimates ‖x − y‖ as well: how far a
quantized row is from its original, of which only S(x) was kept. Several rows become one S by one
more sign for each of them and each of the d numbers, as if they were one long row.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from moestro.model.ggml_types import BY_NAME

NARROW, WIDE = 32, 64
"""Numbers that a unit becomes; routers get the wide ones."""

MAX_ROW_VALUES = 1 << 18
"""Of longer rows the beginning stands for the whole."""
MAX_UNITS = 4096
MAX_UNITS_OF_MODEL = 1 << 20
ROWS_OF_AN_EXPERT = 4
DENSE_ROWS, TABLE_ROWS = 32, 512
NOT_SAMPLED = ("Q8_1", "Q8_K")
"""Types of intermediate results, which no file has and ggml cannot turn back into numbers."""

_ROUTER = re.compile(r"(ffn_gate_inp|exp_probs_b)(\.|$)")
_TABLE = re.compile(r"token_embd\.|^output\.")
"""Tables have a row for each token, so single rows matter there, and there are few tables."""
_SEED = b"moestro row sketch 1"


@dataclass(frozen=True, slots=True)
class RowSample:
    """`units` groups of `rows_each` of the tensor's `rows` rows of `length` values; each group
    becomes `width` numbers. The unit of a tensor of experts is an expert."""

    units: int
    rows_each: int
    width: int
    length: int
    rows: int
    by_expert: bool

    @property
    def values(self) -> int:
        """The part of a row that counts."""
        return min(self.length, MAX_ROW_VALUES)

    def row(self, unit: int, number: int) -> int:
        """Index of row `number` of `unit` in the whole tensor: spread evenly over it."""
        if self.by_expert:
            rows_of_unit = self.rows // self.units
            return unit * rows_of_unit + _spread(number, self.rows_each, rows_of_unit)
        return _spread(unit, self.units, self.rows)


def is_router(name: str) -> bool:
    """Whether the tensor takes part in choosing experts (the shared experts' gate does not)."""
    return _ROUTER.search(name) is not None


def row_sample(name: str, type_name: str, shape: Sequence[int]) -> RowSample:
    """The rows of the tensor `name` that stand for it. `shape` starts with the row length."""
    length, rows = shape[0], math.prod(shape[1:])
    if type_name in NOT_SAMPLED:
        return RowSample(0, 1, NARROW, length, rows, False)
    if is_router(name):
        if rows == 1 and BY_NAME[type_name].block_size == 1:
            length, rows = 1, length  # a bias: one value for each expert
        return RowSample(min(rows, MAX_UNITS), 1, WIDE, length, rows, False)
    # Of experts there are matrices, or vectors: their biases.
    experts = shape[-1] if "exps" in name and len(shape) in (2, 3) else 0
    if 1 < experts <= MAX_UNITS:
        each = min(ROWS_OF_AN_EXPERT, rows // experts)
        return RowSample(experts, each, NARROW, length, rows, True)
    most = TABLE_ROWS if _TABLE.search(name) else DENSE_ROWS
    return RowSample(min(rows, most), 1, NARROW, length, rows, False)


def sign_bytes(number: int, count: int) -> bytes:
    """Row `number` of P: `count` signs, eight a byte, the highest bit first; 1 stands for +1."""
    return hashlib.shake_256(b"%b %d" % (_SEED, number)).digest(-(-count // 8))


def row_sign_bytes(row: int) -> bytes:
    """`WIDE` signs for row `row` of a unit."""
    return hashlib.shake_256(b"%b row %d" % (_SEED, row)).digest(WIDE // 8)


def _spread(number: int, count: int, length: int) -> int:
    return (2 * number + 1) * length // (2 * count)
