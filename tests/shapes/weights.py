"""Random weights that keep a network's activations finite, so that it runs and answers noise."""

from __future__ import annotations

import numpy as np


def random_f32(name: str, dims: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Values for the tensor `name`; `dims` in GGUF order, so the result's shape is reversed."""
    shape = dims[::-1]  # numpy counts the row length last
    if "norm" in name and len(dims) == 1:
        return np.ones(shape, dtype=np.float32)
    if name.endswith("ssm_a"):
        return -np.linspace(0.5, 4.0, dims[0], dtype=np.float32)  # decay rates are negative
    if "exp_probs_b" in name or name.endswith(".bias"):
        return (random.standard_normal(shape) * 0.01).astype(np.float32)
    # Unit variance at the output of a product, but for the table of embeddings.
    scale = 1.0 if name == "token_embd.weight" else dims[0] ** -0.5
    return (random.standard_normal(shape) * scale).astype(np.float32)
