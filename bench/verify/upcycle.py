"""Makes mixture-of-experts models out of SmolLM2-135M that speak as well as it does.

No registry holds a small MoE with trained weights, and thresholds set on random weights mean
nothing. So each feed-forward network becomes four noisy copies of itself, and a router chooses two
of them. What is kept real: attention, norms, embeddings, the language. What is not: the experts
did not learn to differ. Routers are not random either: their rows point at clusters of what the
layer really sees (k-means over some text, run here in numpy), so that a token's kind decides, and
their scale gives logits the spread given below.

Three layouts of the same function:

- `llama` (Mixtral): each expert a whole network; the two weights add up to one.
- `qwen2moe`: half of the neurons are a shared expert behind a gate of ½, the other half four
  routed copies. Weights of the two chosen do not add up to one, so the copies are scaled by what
  they add up to on average, layer by layer.
- `glm4moe`: the same halves; the first block stays dense; sigmoid gating with a bias per expert
  that evens out their load, and weights that add up to one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tests.rewriting import Gguf, StoredTensor

EXPERTS, USED = 4, 2
NOISE = 0.1
"""Of each copy, in standard deviations of the tensor: what experts differ by."""

LOGIT_DEVIATION = 1.5
"""Of the router's logits over tokens and experts."""

SAMPLE_TOKENS = 2048
CHUNK = 512


@dataclass(frozen=True, slots=True)
class Layer:
    """What a layer's router is made from. `mean` [hidden] of what the router sees; `rows`
    [experts, hidden] of the router; `weight_sum` of the two greatest softmax weights, on average;
    `bias` [experts] added to sigmoids so that experts are chosen about equally often."""

    mean: np.ndarray
    rows: np.ndarray
    weight_sum: float
    bias: np.ndarray


def survey(dense: Gguf, tokens: np.ndarray, seed: int = 0) -> list[Layer]:
    """A router for each layer of the dense model, from what it sees on `tokens`."""
    random = np.random.default_rng(seed)
    seen: list[list[np.ndarray]] = [[] for _ in range(dense.get(".block_count"))]
    for start in range(0, len(tokens) - CHUNK + 1, CHUNK):
        for layer, inputs in enumerate(_ffn_inputs(dense, tokens[start : start + CHUNK])):
            seen[layer].append(inputs[1:])  # the first token is an attention sink, unlike others
    return [_router(np.concatenate(inputs), random) for inputs in seen]


def _router(inputs: np.ndarray, random: np.random.Generator) -> Layer:
    """k-means over the inputs' directions; rows through the centres, across the mean."""
    mean = inputs.mean(axis=0)
    centred = inputs - mean
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    centres = centred[random.choice(len(centred), EXPERTS, replace=False)]
    for _ in range(30):
        nearest = (centred @ centres.T).argmax(axis=1)
        centres = np.stack(
            [
                centred[nearest == e].mean(axis=0) if (nearest == e).any() else centres[e]
                for e in range(EXPERTS)
            ]
        )
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    rows = centres - centres.mean(axis=0)
    direction = mean / np.linalg.norm(mean)
    rows -= np.outer(rows @ direction, direction)
    logits = inputs @ rows.T
    rows = (rows / logits.std() * LOGIT_DEVIATION).astype(np.float32)
    logits = inputs @ rows.T
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    weight_sum = float(np.sort(weights, axis=1)[:, -USED:].sum(axis=1).mean())
    return Layer(mean.astype(np.float32), rows, weight_sum, _balancing_bias(logits))


def _balancing_bias(logits: np.ndarray) -> np.ndarray:
    """As DeepSeek-V3 trains it: up for experts chosen too rarely, down for others."""
    scores = 1 / (1 + np.exp(-logits))
    bias = np.zeros(EXPERTS)
    for step in range(400):
        chosen = np.argsort(scores + bias, axis=1)[:, -USED:]
        load = np.bincount(chosen.ravel(), minlength=EXPERTS) / chosen.size
        bias += 0.02 * 0.99**step * np.sign(1 / EXPERTS - load)
    return bias.astype(np.float32)


def _ffn_inputs(dense: Gguf, tokens: np.ndarray) -> Iterator[np.ndarray]:
    """What each layer's feed-forward network sees, [tokens, hidden]: the llama architecture in
    numpy, one chunk at a time."""
    heads, groups = dense.get(".attention.head_count"), dense.get(".attention.head_count_kv")
    eps = dense.get(".attention.layer_norm_rms_epsilon")
    base = dense.get(".rope.freq_base")
    x = dense.values("token_embd.weight")[tokens]
    count, hidden = x.shape
    size = hidden // heads
    angles = np.outer(np.arange(count), base ** (-np.arange(0, size, 2) / size))
    turn = np.exp(1j * angles)[:, None, :]
    mask = np.triu(np.full((count, count), -np.inf, dtype=np.float32), 1)

    def norm(values: np.ndarray, name: str) -> np.ndarray:
        scale = np.sqrt((values**2).mean(axis=1, keepdims=True) + eps)
        return np.asarray(values / scale * dense.values(name), dtype=np.float32)

    def rotated(values: np.ndarray) -> np.ndarray:
        # llama's GGUF rows interleave: neighbours are a pair
        pairs = values[..., 0::2] + 1j * values[..., 1::2]
        turned = pairs * turn
        out = np.empty_like(values)
        out[..., 0::2], out[..., 1::2] = turned.real, turned.imag
        return out

    for layer in range(dense.get(".block_count")):
        block = f"blk.{layer}"
        inputs = norm(x, f"{block}.attn_norm.weight")
        q, k, v = (
            (inputs @ dense.values(f"{block}.attn_{name}.weight").T).reshape(count, -1, size)
            for name in "qkv"
        )
        q, k = rotated(q), rotated(k)
        mixed = np.empty_like(q)
        for head in range(heads):
            group = head * groups // heads
            scores = q[:, head] @ k[:, group].T / np.sqrt(size) + mask
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            mixed[:, head] = scores / scores.sum(axis=1, keepdims=True) @ v[:, group]
        x = x + mixed.reshape(count, hidden) @ dense.values(f"{block}.attn_output.weight").T
        inputs = norm(x, f"{block}.ffn_norm.weight")
        yield inputs
        gate = inputs @ dense.values(f"{block}.ffn_gate.weight").T
        up = inputs @ dense.values(f"{block}.ffn_up.weight").T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ dense.values(f"{block}.ffn_down.weight").T


class _Upcycled:
    """A file under construction: keys of the dense one under the new architecture's name."""

    def __init__(self, dense: Gguf, architecture: str, seed: int) -> None:
        old = dense.architecture
        keys = {}
        for key, value in dense.keys.items():
            name = key.replace(f"{old}.", f"{architecture}.", 1) if key.startswith(old) else key
            keys[name] = value
        self.dense = dense
        self.file = Gguf(keys, {})
        self.random = np.random.default_rng(seed)
        self.file.set("general.architecture", architecture)
        self.file.set("general.name", f"SmolLM2 upcycled, {architecture}")
        self.file.set("general.file_type", 1)
        self.file.set(".expert_count", EXPERTS)
        self.file.set(".expert_used_count", USED)

    def put(self, name: str, values: np.ndarray) -> None:
        self.file.store(name, values, "F16" if values.ndim > 1 else "F32")

    def put_router(self, name: str, values: np.ndarray) -> None:
        self.file.store(name, values, "F32")

    def keep(self, name: str, new_name: str | None = None) -> None:
        self.put(new_name or name, self.dense.values(name))

    def copies(self, values: np.ndarray) -> np.ndarray:
        """[experts, rows, columns]"""
        noise = self.random.standard_normal((EXPERTS, *values.shape), dtype=np.float32)
        copied: np.ndarray = values + noise * (NOISE * values.std())
        return copied

    def halves(self, block: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """(shared, routed) neurons of each of the three matrices: every other one."""
        parts = {}
        for name in ("gate", "up"):
            values = self.dense.values(f"{block}.ffn_{name}.weight")
            parts[name] = (values[0::2], values[1::2])
        down = self.dense.values(f"{block}.ffn_down.weight")
        parts["down"] = (down[:, 0::2], down[:, 1::2])
        return parts

    def ends(self, *, head: bool) -> None:
        self.keep("token_embd.weight")
        self.keep("output_norm.weight")
        if head:
            self.keep("token_embd.weight", "output.weight")

    def attention(self, block: str, *, half_split_rope: bool) -> None:
        self.keep(f"{block}.attn_norm.weight")
        for name in ("q", "k"):
            values = self.dense.values(f"{block}.attn_{name}.weight")
            if half_split_rope:
                values = _half_split(values, self.dense.get(".rope.dimension_count"))
            self.put(f"{block}.attn_{name}.weight", values)
        self.keep(f"{block}.attn_v.weight")
        self.keep(f"{block}.attn_output.weight")

    def split_experts(self, block: str, *, shared_scale: float, routed_scale: float) -> None:
        scales = {"gate": (1.0, 1.0), "up": (1.0, 1.0), "down": (shared_scale, routed_scale)}
        for name, (shared, routed) in self.halves(block).items():
            for_shared, for_routed = scales[name]
            self.put(f"{block}.ffn_{name}_exps.weight", self.copies(routed * for_routed))
            self.put(f"{block}.ffn_{name}_shexp.weight", shared * for_shared)


def _half_split(rows: np.ndarray, size: int) -> np.ndarray:
    """Rows of q or k whose rotation turned neighbours, for one of the pairs (i, i + size/2)."""
    heads = rows.reshape(-1, size // 2, 2, rows.shape[1])
    return heads.swapaxes(1, 2).reshape(rows.shape)


def mixtral(dense: Gguf, layers: list[Layer], seed: int = 1) -> Gguf:
    new = _Upcycled(dense, "llama", seed)
    new.ends(head=False)
    for number, layer in enumerate(layers):
        block = f"blk.{number}"
        new.attention(block, half_split_rope=False)
        new.keep(f"{block}.ffn_norm.weight")
        new.put_router(f"{block}.ffn_gate_inp.weight", layer.rows)
        for name in ("gate", "up", "down"):
            values = dense.values(f"{block}.ffn_{name}.weight")
            new.put(f"{block}.ffn_{name}_exps.weight", new.copies(values))
    return new.file


def qwen2moe(dense: Gguf, layers: list[Layer], seed: int = 2) -> Gguf:
    new = _Upcycled(dense, "qwen2moe", seed)
    neurons = dense.get(".feed_forward_length") // 2
    new.file.set(".expert_feed_forward_length", neurons)
    new.file.set(".expert_shared_feed_forward_length", neurons)
    new.ends(head=True)
    for number, layer in enumerate(layers):
        block = f"blk.{number}"
        new.attention(block, half_split_rope=True)
        new.keep(f"{block}.ffn_norm.weight")
        new.put_router(f"{block}.ffn_gate_inp.weight", layer.rows)
        # Not zero: the engine works the gate out as silu(x) / x.
        tiny = new.random.standard_normal(layer.mean.shape).astype(np.float32) * 1e-3
        new.put(f"{block}.ffn_gate_inp_shexp.weight", tiny)
        new.split_experts(block, shared_scale=2.0, routed_scale=1 / layer.weight_sum)
    return new.file


def glm4moe(dense: Gguf, layers: list[Layer], seed: int = 3) -> Gguf:
    new = _Upcycled(dense, "glm4moe", seed)
    new.file.set(".expert_feed_forward_length", dense.get(".feed_forward_length") // 2)
    new.file.set(".expert_shared_count", 1)
    new.file.set(".leading_dense_block_count", 1)
    new.file.set(".expert_gating_func", 2)
    new.file.set(".expert_weights_norm", True)
    new.file.set(".expert_weights_scale", 1.0)
    new.ends(head=True)
    for number, layer in enumerate(layers):
        block = f"blk.{number}"
        new.attention(block, half_split_rope=True)
        new.keep(f"{block}.ffn_norm.weight", f"{block}.post_attention_norm.weight")
        if number == 0:
            for name in ("gate", "up", "down"):
                new.keep(f"{block}.ffn_{name}.weight")
            continue
        new.put_router(f"{block}.ffn_gate_inp.weight", layer.rows)
        new.put(f"{block}.exp_probs_b.bias", layer.bias)
        new.split_experts(block, shared_scale=1.0, routed_scale=1.0)
    return new.file


LAYOUTS: dict[str, Callable[[Gguf, list[Layer]], Gguf]] = {
    "llama": mixtral,
    "qwen2moe": qwen2moe,
    "glm4moe": glm4moe,
}


def as_f16(dense: Gguf) -> Gguf:
    """The dense model with every matrix in F16, for comparison."""
    tensors: dict[str, StoredTensor] = {}
    file = Gguf(dict(dense.keys), tensors)
    for name, tensor in dense.tensors.items():
        file.store(name, dense.values(name), "F16" if len(tensor.dims) > 1 else "F32")
    file.set("general.file_type", 1)
    return file


def save_survey(layers: list[Layer], path: Path) -> None:
    np.savez(
        path,
        mean=np.stack([layer.mean for layer in layers]),
        rows=np.stack([layer.rows for layer in layers]),
        weight_sum=np.array([layer.weight_sum for layer in layers]),
        bias=np.stack([layer.bias for layer in layers]),
    )


def load_survey(path: Path) -> list[Layer]:
    with np.load(path) as saved:
        columns = (saved["mean"], saved["rows"], saved["weight_sum"], saved["bias"])
        return [Layer(m, r, float(s), b) for m, r, s, b in zip(*columns, strict=True)]
