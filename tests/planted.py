"""Faults on purpose: what can go wrong with a model file between training and serving.

    plant("router-2-bits", source, target, seed=0)     # → target, which holds the fault
    fault = FAULTS["router-2-bits"]
    fault.fits(Gguf.open(source))                      # does it make sense for this file?
    fault.codes, fault.measured                        # what a check should say

Every fault carries the codes of findings that name it rightly: `codes` if the two files may be
compared, `measured` if only what the models answer is seen. `measured` is empty where running the
text cannot show the fault (a lost MTP block). A fault with neither is none: a control that has to
pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from tests.rewriting import Gguf, StoredTensor
from tests.shapes.write import tensor_bytes

Directions = Callable[[int], np.ndarray | None]
"""The mean of what a block's router sees, [hidden], where somebody measured it."""

EXPERT_MATRICES = ("gate", "up", "down", "gate_up")


@dataclass(frozen=True, slots=True)
class Site:
    """The file to change, a seeded generator, and mean inputs of the routers if they are known."""

    file: Gguf
    random: np.random.Generator
    directions: Directions

    def router(self, block: int) -> str:
        return f"blk.{block}.ffn_gate_inp.weight"

    def some_block(self) -> int:
        """One of the blocks with routed experts that answer; never an MTP block."""
        return int(self.random.choice(moe_blocks(self.file)))

    def expert_tensors(self, block: int) -> list[str]:
        names = (f"blk.{block}.ffn_{part}_exps.weight" for part in EXPERT_MATRICES)
        return [name for name in names if name in self.file.tensors]

    def two_experts(self) -> tuple[int, int]:
        first, second = self.random.choice(self.file.get(".expert_count"), 2, replace=False)
        return int(first), int(second)


@dataclass(frozen=True, slots=True)
class Fault:
    says: str
    change: Callable[[Site], None]
    codes: frozenset[str]
    measured: frozenset[str]
    fits: Callable[[Gguf], bool]
    cut_bytes: int = 0
    """Taken off the end of the written file."""

    @property
    def harmless(self) -> bool:
        return not self.codes and not self.measured


FAULTS: dict[str, Fault] = {}

SCALE_AT = {"Q8_0": 0, "Q4_0": 0, "Q5_0": 0, "Q5_1": 0, "Q4_K": 0, "Q5_K": 0, "Q6_K": 208}
"""Where in a block its f16 scale lies."""

SIGNS_AT = {
    "F32": (3,), "F16": (1,), "Q8_0": (1,), "Q4_0": (1,), "Q5_0": (1,), "Q5_1": (1, 3),
    "Q4_K": (1, 3), "Q5_K": (1, 3), "Q6_K": (209,),
}  # fmt: skip
"""The bytes of a block whose highest bits decide the sign of all its values."""

MOVED = ("divergence-high", "divergence-tail", "top1-agreement-low", "perplexity-worse")
ROUTED = ("routing-drift", "routing-collapse", "experts-dead")


def plant(
    name: str,
    source: Path,
    target: Path,
    *,
    seed: int = 0,
    directions: Directions = lambda block: None,
) -> Path:
    """Writes `source` with the fault `name`, a key of FAULTS, to `target` and returns it."""
    fault = FAULTS[name]
    file = Gguf.open(source)
    fault.change(Site(file, np.random.default_rng(seed), directions))
    file.write(target)
    if fault.cut_bytes:
        with target.open("r+b") as written:
            written.truncate(target.stat().st_size - fault.cut_bytes)
    return target


def moe_blocks(file: Gguf) -> list[int]:
    """Blocks with routed experts, without those of multi-token prediction."""
    found = (re.fullmatch(r"blk\.(\d+)\.ffn_gate_inp\.weight", name) for name in file.tensors)
    last = trunk_blocks(file)
    return sorted(block for match in found if match and (block := int(match[1])) < last)


def trunk_blocks(file: Gguf) -> int:
    return int(file.get(".block_count") - (file.get(".nextn_predict_layers") or 0))


def mtp_tensors(file: Gguf) -> list[str]:
    last = trunk_blocks(file)
    return [name for name in file.tensors if (block := _block(name)) is not None and block >= last]


def _block(name: str) -> int | None:
    match = re.match(r"blk\.(\d+)\.", name)
    return int(match[1]) if match else None


def _experts(file: Gguf) -> bool:
    return bool(moe_blocks(file))


def _always(file: Gguf) -> bool:
    return True


def _has(part: str) -> Callable[[Gguf], bool]:
    return lambda file: any(part in name for name in file.tensors)


def _is(architecture: str) -> Callable[[Gguf], bool]:
    return lambda file: file.architecture == architecture


def _has_wide_experts(file: Gguf) -> bool:
    """Some whose rows are whole blocks of a K-quant."""
    return any("_exps." in n and t.dims[0] % 256 == 0 for n, t in file.tensors.items())


def _has_experts_of(file: Gguf, *types: str) -> bool:
    return any("_exps." in name and t.type in types for name, t in file.tensors.items())


def _has_two_moe_blocks(file: Gguf) -> bool:
    return len(moe_blocks(file)) > 1


def _has_trained_norm(file: Gguf) -> bool:
    return not bool((file.values("output_norm.weight") == 1).all())


def _reads_gating(file: Gguf) -> bool:
    """The other architectures have their gating function in the engine's code."""
    return file.get(".expert_gating_func") is not None


def _fault(
    name: str,
    codes: Iterable[str],
    measured: Iterable[str],
    fits: Callable[[Gguf], bool] = _experts,
    cut_bytes: int = 0,
) -> Callable[[Callable[[Site], None]], Callable[[Site], None]]:
    """Registers a function that changes a file; its docstring says what is wrong afterwards."""

    def register(change: Callable[[Site], None]) -> Callable[[Site], None]:
        says = " ".join((change.__doc__ or "").split())
        FAULTS[name] = Fault(says, change, frozenset(codes), frozenset(measured), fits, cut_bytes)
        return change

    return register


# Routers


def _round_routers(site: Site, bits: int) -> None:
    for block in moe_blocks(site.file):
        rows = site.file.values(site.router(block))
        site.file.store(site.router(block), rounded(rows, bits))


def rounded(rows: np.ndarray, bits: int) -> np.ndarray:
    """Each row (last axis) on the nearest of 2^bits even steps from its least to its greatest."""
    low, high = rows.min(axis=-1, keepdims=True), rows.max(axis=-1, keepdims=True)
    step = np.maximum(high - low, np.finfo(np.float32).tiny) / (2**bits - 1)
    return np.asarray(((rows - low) / step).round() * step + low, dtype=np.float32)


@_fault("router-2-bits", ("router-quantized", "router-differs"), (*ROUTED, *MOVED))
def _router_2_bits(site: Site) -> None:
    """Every router's rows rounded to 4 levels, stored in the type they had."""
    _round_routers(site, 2)


@_fault("router-4-bits", ("router-quantized", "router-differs"), (*ROUTED, *MOVED))
def _router_4_bits(site: Site) -> None:
    """Every router's rows rounded to 16 levels, stored in the type they had."""
    _round_routers(site, 4)


@_fault("router-q4-0", ("router-quantized",), (*ROUTED, *MOVED))
def _router_q4_0(site: Site) -> None:
    """Every router stored as Q4_0, as no quantizer of today would."""
    for block in moe_blocks(site.file):
        site.file.store(site.router(block), site.file.values(site.router(block)), "Q4_0")


@_fault("router-collapsed", ("router-differs",), ROUTED)
def _router_collapsed(site: Site) -> None:
    """Routers bent so that as many experts as a token uses win almost always."""
    few = site.file.get(".expert_used_count")
    for block in moe_blocks(site.file):
        bias = f"blk.{block}.exp_probs_b.bias"
        rows = site.file.values(site.router(block))
        direction = site.directions(block)
        if bias in site.file.tensors:
            values = site.file.values(bias)
            values[:few] += 10.0
            site.file.store(bias, values)
            continue
        size = np.linalg.norm(rows, axis=1).mean()
        if direction is not None:
            # What all tokens share says yes to the few.
            rows[:few] += 4 * size * direction / np.linalg.norm(direction)
        else:
            # Pairs of opposites: one of each is great whatever comes.
            rows *= 0.05
            for pair in range(few):
                row = site.random.standard_normal((rows.shape[1],))
                row *= 6 * size / np.linalg.norm(row)
                rows[2 * pair], rows[2 * pair + 1] = row, -row
        site.file.store(site.router(block), rows)


@_fault("router-rows-lost", ("router-differs", "expert-zero"), (*ROUTED, *MOVED))
def _router_rows_lost(site: Site) -> None:
    """A quarter of each router's rows are zero, as after a bad merge."""
    for block in moe_blocks(site.file):
        rows = site.file.values(site.router(block))
        lost = site.random.choice(len(rows), len(rows) // 4, replace=False)
        rows[lost] = 0
        site.file.store(site.router(block), rows)


@_fault("routers-shuffled", ("router-differs",), (*ROUTED, *MOVED))
def _routers_shuffled(site: Site) -> None:
    """One block's router has its rows in another order than its experts."""
    block = site.some_block()
    rows = site.file.values(site.router(block))
    site.file.store(site.router(block), np.roll(rows, 1, axis=0))


@_fault(
    "router-bias-lost",
    ("router-differs", "tensors-missing", "tensor-differs", "bad-values"),
    (*ROUTED, *MOVED),
    _has("exp_probs_b"),
)
def _router_bias_lost(site: Site) -> None:
    """The bias that balances the experts is zero everywhere."""
    for block in moe_blocks(site.file):
        name = f"blk.{block}.exp_probs_b.bias"
        site.file.store(name, np.zeros_like(site.file.values(name)))


@_fault("gating-changed", ("gating-differs",), (*MOVED, *ROUTED), _reads_gating)
def _gating_changed(site: Site) -> None:
    """The header names softmax for sigmoid, or the other way round."""
    site.file.set(".expert_gating_func", 3 - site.file.get(".expert_gating_func"))


@_fault("gating-forgotten", ("gating-differs",), (*MOVED, *ROUTED), _is("deepseek2"))
def _gating_forgotten(site: Site) -> None:
    """The header does not name the gating function any more: the engine takes softmax."""
    site.file.drop(".expert_gating_func")


@_fault("used-count-changed", ("metadata-differs",), (*MOVED, *ROUTED))
def _used_count_changed(site: Site) -> None:
    """The header asks for one expert fewer per token."""
    site.file.set(".expert_used_count", site.file.get(".expert_used_count") - 1)


# Experts


@_fault("expert-zeroed", ("expert-zero",), MOVED)
def _expert_zeroed(site: Site) -> None:
    """One expert of one block is all zeros."""
    block, expert = site.some_block(), site.two_experts()[0]
    for name in site.expert_tensors(block):
        rows = _encoded_rows(site.file, name)
        per_expert = len(rows) // site.file.tensors[name].shape[0]
        rows[expert * per_expert : (expert + 1) * per_expert] = 0
        _put_rows(site.file, name, rows)


@_fault("experts-swapped", ("experts-swapped",), MOVED)
def _experts_swapped(site: Site) -> None:
    """Two experts of one block have changed places; the router was not told."""
    _swap(site, [site.some_block()])


@_fault("all-experts-swapped", ("experts-swapped",), MOVED)
def _all_experts_swapped(site: Site) -> None:
    """Two experts have changed places in every block."""
    _swap(site, moe_blocks(site.file))


def _swap(site: Site, blocks: list[int]) -> None:
    first, second = site.two_experts()
    for block in blocks:
        for name in site.expert_tensors(block):
            _reorder_experts(site.file, name, {first: second, second: first})


def _reorder_experts(file: Gguf, name: str, moves: dict[int, int]) -> None:
    """Moves encoded slices: exact, in any type. `moves` tells each place which expert it gets."""
    tensor = file.tensors[name]
    slices = tensor.data.reshape(tensor.shape[0], -1)
    order = [moves.get(expert, expert) for expert in range(len(slices))]
    file.tensors[name] = StoredTensor(tensor.dims, tensor.type, slices[order].reshape(-1))


def _encoded_rows(file: Gguf, name: str) -> np.ndarray:
    """[rows, bytes], a copy. In every type of ggml zero bytes are zeros."""
    tensor = file.tensors[name]
    return tensor.data.reshape(-1, tensor_bytes(tensor.type, tensor.dims[:1])).copy()


def _put_rows(file: Gguf, name: str, rows: np.ndarray) -> None:
    tensor = file.tensors[name]
    file.tensors[name] = StoredTensor(tensor.dims, tensor.type, rows.reshape(-1))


def _negated(rows: np.ndarray, kind: str) -> np.ndarray:
    """Encoded rows with the opposite sign, exactly: the sign bits of the scales turned."""
    size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]
    blocks = rows.reshape(-1, size).copy()
    for high_byte in SIGNS_AT[kind]:
        blocks[:, high_byte] ^= 0x80
    return blocks.reshape(rows.shape)


@_fault("expert-duplicated", ("tensor-differs", "experts-swapped"), MOVED)
def _expert_duplicated(site: Site) -> None:
    """One expert of one block has been overwritten with its neighbour."""
    first, second = site.two_experts()
    for name in site.expert_tensors(site.some_block()):
        _reorder_experts(site.file, name, {first: second})


@_fault("block-experts-2-bit-type", ("experts-low-bit",), MOVED, _has_wide_experts)
def _block_experts_2_bit_type(site: Site) -> None:
    """One block's experts in Q2_K, as far as their rows allow it."""
    block = site.some_block()
    for name in site.expert_tensors(block):
        if site.file.tensors[name].dims[0] % 256 == 0:
            site.file.store(name, site.file.values(name), "Q2_K")


@_fault(
    "block-experts-2-bit-values",
    ("tensor-differs", "experts-low-bit"),
    MOVED,
    lambda file: _has_experts_of(file, "F16", "F32"),
)
def _block_experts_2_bit_values(site: Site) -> None:
    """One block's experts have 4 levels per 32 values, stored in the type they had."""
    for name in site.expert_tensors(site.some_block()):
        values = site.file.values(name)
        site.file.store(name, rounded(values.reshape(-1, 32), 2).reshape(values.shape))


@_fault("shared-expert-lost", ("shared-experts-missing",), ("engine-refused",), _has("_shexp"))
def _shared_expert_lost(site: Site) -> None:
    """The shared experts' tensors are gone; the header still speaks of them."""
    for name in [name for name in site.file.tensors if "_shexp." in name]:
        del site.file.tensors[name]


@_fault(
    "shared-expert-zeroed",
    ("shared-experts-missing", "expert-zero", "tensor-differs", "bad-values"),
    MOVED,
    _has("_shexp"),
)
def _shared_expert_zeroed(site: Site) -> None:
    """The shared experts answer zero in every block."""
    for block in moe_blocks(site.file):
        name = f"blk.{block}.ffn_down_shexp.weight"
        _put_rows(site.file, name, np.zeros_like(_encoded_rows(site.file, name)))


@_fault(
    "shared-expert-denied",
    ("shared-experts-missing", "metadata-differs"),
    (*MOVED, "engine-refused"),
    lambda file: bool(file.get(".expert_shared_count")),
)
def _shared_expert_denied(site: Site) -> None:
    """Header and tensors agree that there is no shared expert; there was one."""
    site.file.set(".expert_shared_count", 0)
    _shared_expert_lost(site)


# The rest of the network


@_fault("rope-base-wrong", ("rope-differs",), MOVED, lambda f: bool(f.get(".rope.freq_base")))
def _rope_base_wrong(site: Site) -> None:
    """The rotation's base is a tenth of what it was."""
    site.file.set(".rope.freq_base", site.file.get(".rope.freq_base") / 10)


@_fault("rope-scaled", ("rope-differs", "metadata-differs"), MOVED, _always)
def _rope_scaled(site: Site) -> None:
    """Linear scaling of positions by 4, as for a longer context."""
    site.file.set(".rope.scaling.type", "linear")
    site.file.set(".rope.scaling.factor", 4.0)


@_fault("epsilon-wrong", ("metadata-differs",), MOVED, _always)
def _epsilon_wrong(site: Site) -> None:
    """The norms' epsilon is 0.1."""
    site.file.set(".attention.layer_norm_rms_epsilon", 0.1)


@_fault("norm-of-ones", ("tensor-differs",), MOVED, _has_trained_norm)
def _norm_of_ones(site: Site) -> None:
    """The last norm's weights are all one."""
    name = "output_norm.weight"
    site.file.store(name, np.ones_like(site.file.values(name)))


@_fault("attention-flipped", ("tensor-differs",), MOVED, _has("attn_output.weight"))
def _attention_flipped(site: Site) -> None:
    """Half of the rows of one block's attention output have the wrong sign."""
    names = [name for name in site.file.tensors if name.endswith("attn_output.weight")]
    kept = [name for name in names if name not in set(mtp_tensors(site.file))]
    name = str(site.random.choice(kept))
    rows = _encoded_rows(site.file, name)
    turned = site.random.choice(len(rows), len(rows) // 2, replace=False)
    rows[turned] = _negated(rows[turned], site.file.tensors[name].type)
    _put_rows(site.file, name, rows)


@_fault("embedding-shuffled", ("tensor-differs",), MOVED, _always)
def _embedding_shuffled(site: Site) -> None:
    """One row in twenty of the table of embeddings belongs to another token."""
    rows = _encoded_rows(site.file, "token_embd.weight")
    moved = site.random.choice(len(rows), max(len(rows) // 20, 2), replace=False)
    rows[moved] = rows[np.roll(moved, 1)]
    _put_rows(site.file, "token_embd.weight", rows)


@_fault(
    "blocks-swapped",
    ("tensor-differs", "router-differs", "experts-swapped"),
    (*ROUTED, *MOVED),
    _has_two_moe_blocks,
)
def _blocks_swapped(site: Site) -> None:
    """The routed experts and routers of two blocks have changed places."""
    blocks = moe_blocks(site.file)
    first, second = blocks[len(blocks) // 2 - 1], blocks[len(blocks) // 2]
    pairs = zip(site.expert_tensors(first), site.expert_tensors(second), strict=True)
    for one, other in [*pairs, (site.router(first), site.router(second))]:
        tensors = site.file.tensors
        tensors[one], tensors[other] = tensors[other], tensors[one]


# Values


@_fault("value-infinite", ("bad-values",), ("output-not-finite", "engine-refused", *MOVED))
def _value_infinite(site: Site) -> None:
    """One value of one expert is infinite."""
    floats = ("F16", "F32")
    kept = [
        name
        for block in moe_blocks(site.file)
        for name in [*site.expert_tensors(block), site.router(block)]
        if site.file.tensors[name].type in floats
    ]
    name = str(site.random.choice(kept))
    tensor = site.file.tensors[name]
    data = tensor.data.copy()
    values = data.view(np.float16 if tensor.type == "F16" else np.float32)
    values[site.random.integers(len(values))] = np.inf
    site.file.tensors[name] = StoredTensor(tensor.dims, tensor.type, data)


@_fault("block-scale-nan", ("bad-values",), (), lambda file: _has_experts_of(file, *SCALE_AT))
def _block_scale_nan(site: Site) -> None:
    """The scale of one block of one expert is not a number. The answers need not show it: what is
    not a number becomes some integer where the engine rounds activations to 8 bits."""
    experts = [name for block in moe_blocks(site.file) for name in site.expert_tensors(block)]
    name = str(site.random.choice([n for n in experts if site.file.tensors[n].type in SCALE_AT]))
    tensor = site.file.tensors[name]
    data = tensor.data.copy()
    block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[tensor.type]][1]
    blocks = data.reshape(-1, block_bytes)
    at = SCALE_AT[tensor.type]
    nan = np.array([np.nan], dtype=np.float16).view(np.uint8)
    blocks[site.random.integers(len(blocks)), at : at + 2] = nan
    site.file.tensors[name] = StoredTensor(tensor.dims, tensor.type, data)


# Parts


@_fault(
    "mtp-tensors-lost",
    ("mtp-tensors-missing", "mtp-missing", "tensors-missing"),
    (),
    lambda file: bool(mtp_tensors(file)),
)
def _mtp_tensors_lost(site: Site) -> None:
    """The MTP block's tensors are gone; the header still declares the block."""
    for name in mtp_tensors(site.file):
        del site.file.tensors[name]


@_fault("mtp-lost", ("mtp-missing",), (), lambda file: bool(mtp_tensors(file)))
def _mtp_lost(site: Site) -> None:
    """Header and tensors agree that there is no MTP block; there was one."""
    _mtp_tensors_lost(site)
    site.file.set(".block_count", trunk_blocks(site.file))
    site.file.drop(".nextn_predict_layers")


@_fault("tensor-lost", ("tensors-missing",), ("engine-refused",), _always)
def _tensor_lost(site: Site) -> None:
    """One block's attention norm is gone."""
    del site.file.tensors[f"blk.{site.random.integers(trunk_blocks(site.file))}.attn_norm.weight"]


@_fault("truncated", ("model-truncated",), ("engine-refused", "model-truncated"), _always, 100_000)
def _truncated(site: Site) -> None:
    """The file ends 100 kB too early, as after a broken download."""


# Vocabulary


@_fault("tokens-swapped", ("tokenizer-differs", "vocabulary-differs"), ("tokenizer-differs",),
        _always)  # fmt: skip
def _tokens_swapped(site: Site) -> None:
    """Two tokens of the vocabulary have changed their texts."""
    tokens = site.file.get("tokenizer.ggml.tokens")
    kinds = site.file.get("tokenizer.ggml.token_type")
    plain = [number for number, kind in enumerate(kinds) if kind == 1 and len(tokens[number]) > 1]
    first, second = sorted(plain or range(2))[:2]
    tokens[first], tokens[second] = tokens[second], tokens[first]
    site.file.set("tokenizer.ggml.tokens", tokens)


@_fault("merges-reversed", ("tokenizer-differs", "vocabulary-differs"), ("tokenizer-differs",),
        lambda file: bool(file.get("tokenizer.ggml.merges")))  # fmt: skip
def _merges_reversed(site: Site) -> None:
    """The merges are in the opposite order, so that text is cut elsewhere."""
    site.file.set("tokenizer.ggml.merges", site.file.get("tokenizer.ggml.merges")[::-1])


# Controls


@_fault("experts-renumbered", (), ())
def _experts_renumbered(site: Site) -> None:
    """Not a fault: experts and the router's rows in another order, the same one. The answers are
    the same; only the numbers of experts are others."""
    for block in moe_blocks(site.file):
        order = site.random.permutation(site.file.get(".expert_count"))
        moves = {place: int(expert) for place, expert in enumerate(order)}
        names = [*site.expert_tensors(block), site.router(block)]
        bias = f"blk.{block}.exp_probs_b.bias"
        for name in [*names, *([bias] if bias in site.file.tensors else [])]:
            _reorder_experts(site.file, name, moves)


@_fault("renamed", (), (), _always)
def _renamed(site: Site) -> None:
    """Not a fault: another name and description in the header."""
    site.file.set("general.name", "the same under another name")
    site.file.set("general.description", "nothing that the engine reads")
