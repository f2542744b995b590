"""How much room the engine's graph needs, without the engine.

llama.cpp plans one buffer for all intermediate results of a batch and lets results that are no
longer needed make room for others. So its size is that of the fullest moment of a block. For a
batch of T tokens, in values of 4 bytes, with H the hidden width (dry runs of the shapes in
`tests/shapes`, release in `engine/llama_cpp/version.py`; most agree to a few hundred bytes):

- **Feed-forward**: T · (5 H + 3 F). F is the width of the gate, up and activated results, times the
  experts used in a block of experts; 5 H are the inputs, the residual stream and its norm. The
  results of the k chosen experts, k · H, find room where gate and up were, unless they are wider
  than those two: then k · H more (Qwen3-30B-A3B, not Mixtral).
- **Attention** with flash attention: T · (3 H + 3 Q + 2 V) for queries Q and values V wide. Latent
  attention turns every head's query into the latent space: T · (5 H + 2 N (nope + rope) + …).
  Without flash attention the scores of every head come on top: T · cells · N.
- **The mask**: T · cells, of 2 bytes with flash attention and 4 without; one more for windows.
- **Gated DeltaNet**: T · (5 H + 2 C + I) + S · (3 C + 2 D), C the convolution's width, I the inner
  width, D the state of one of S sequences; one D more for each drafted token's snapshot.
- **Logits**: 5 H · T, and one row of the vocabulary for each output of the batch.

On GPUs a cache that is not f16 is turned into f16 for prompts, one block at a time: two bytes for
each value in it. The host keeps 4 H of inputs and the mask. Where all blocks are on several GPUs
the engine keeps four copies of what passes between them, to work on several batches at once.
Weights that stay in host memory are copied to the GPU for large batches, one tensor at a time; how
many such copies lie beside each other is not modelled, so there the formula can be off by one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from moestro.model import LayerKind, ModelSpec, TensorInfo
from moestro.planning.placement import HOST, Placement, gpu_name, is_routed_expert
from moestro.planning.settings import Settings

ERROR = "a formula: 0.1 % off on a host for most models, more where a GPU copies weights"
_FLOAT = 4
_PIPELINE_COPIES = 4  # GGML_SCHED_MAX_COPIES
_OFFLOAD_BATCH = 32  # tokens from which on a GPU takes over work on weights in host memory


@dataclass(frozen=True)
class GraphShape:
    """Widths of a model's blocks, in values per token, found once."""

    model: ModelSpec

    @cached_property
    def hidden(self) -> int:
        return self.model.embedding_length or 0

    @cached_property
    def heads(self) -> int:
        return self.model.attention_heads or 0

    @cached_property
    def _rows(self) -> dict[str, int]:
        """The most rows of each kind of matrix in any block, by the name behind the block's."""
        found: dict[str, int] = {}
        for tensor in self.model.tensors:
            if tensor.layer is not None and len(tensor.shape) > 1 and _is_weight(tensor):
                kind = tensor.name.split(".", 2)[2].removesuffix(".weight")
                found[kind] = max(found.get(kind, 0), tensor.shape[1])
        return found

    @cached_property
    def _columns(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for tensor in self.model.tensors:
            if tensor.layer is not None and _is_weight(tensor):
                kind = tensor.name.split(".", 2)[2].removesuffix(".weight")
                found[kind] = max(found.get(kind, 0), tensor.shape[0])
        return found

    @cached_property
    def feed_forward(self) -> int:
        """The fullest moment of the feed-forward part."""
        rows = self._rows
        used = self.model.experts.used if self.model.experts else 0
        plain = max(rows.get("ffn_up", 0), rows.get("ffn_up_shexp", 0))
        fused = rows.get("ffn_gate_up_exps", 0) // 2
        routed = max(rows.get("ffn_up_exps", 0), rows.get("ffn_gate_exps", 0), fused) * used
        chosen = used * self.hidden
        of_experts = 3 * routed + (chosen if chosen > 2 * routed else 0)
        return 5 * self.hidden + max(3 * plain, of_experts)

    @cached_property
    def query(self) -> int:
        return self._columns.get("attn_output", self._columns.get("attn_output_b", self.hidden))

    @cached_property
    def attention(self) -> int:
        """The fullest moment of attention, scores and mask not counted."""
        rows, hidden = self._rows, self.hidden
        if "hc_attn_fn" in rows:  # hyper-connections: the stream is several times as wide
            return 3 * rows.get("attn_q_b", 0) + 31 * hidden // 4
        if "attn_k_b" in rows:
            latent, queries = rows["attn_k_b"] * self.heads, rows.get("attn_q_b", 0)
            queries = queries or rows.get("attn_q", 0)
            turned = (rows.get("attn_kv_a_mqa", 0) - rows["attn_k_b"]) * self.heads
            return 5 * hidden + queries + turned + latent + (latent + turned)
        keys = max(rows.get("attn_k", 0), rows.get("attn_v", 0))
        gate = max(rows.get("attn_q", 0) - self.query, 0)
        return 3 * hidden + 3 * self.query + 2 * keys + gate

    @cached_property
    def convolution(self) -> int:
        """Channels of the convolution of DeltaNet blocks; 0 without such blocks."""
        return self._rows.get("ssm_conv1d", 0) if "attn_qkv" in self._rows else 0

    @cached_property
    def inner(self) -> int:
        return self._columns.get("ssm_out", 0)

    @cached_property
    def state(self) -> int:
        """Values of one sequence's state in one DeltaNet block, without its convolution."""
        taps = self._columns.get("ssm_conv1d", 1) - 1
        states = [layer.state_bytes for layer in self.model.layers or ()]
        return max(max(states, default=0) // _FLOAT - taps * self.convolution, 0)

    @cached_property
    def window(self) -> int | None:
        """The window of window attention, where only some blocks have it."""
        layers = self.model.trunk_layers or ()
        windows = [store.window for layer in layers for store in layer.stores if store.window]
        return max(windows, default=None)

    @cached_property
    def uneven_heads(self) -> bool:
        """Keys wider than values, as in early files of latent attention: GPUs have no kernel for
        flash attention on them."""
        stores = [store for layer in self.model.trunk_layers or () for store in layer.stores]
        return any(store.value_width not in (0, store.key_width) for store in stores)

    @cached_property
    def compressed(self) -> bool:
        return any(layer.kind is LayerKind.COMPRESSED for layer in self.model.layers or ())

    @cached_property
    def largest_block_tensor(self) -> dict[int, tuple[int, int]]:
        """For each block the bytes of its largest tensor, and of its largest tensor of experts."""
        found: dict[int, tuple[int, int]] = {}
        for tensor in self.model.tensors:
            if tensor.layer is None:
                continue
            every, experts = found.get(tensor.layer, (0, 0))
            size_bytes = tensor.size_bytes
            of_experts = size_bytes if is_routed_expert(tensor) else 0
            found[tensor.layer] = (max(every, size_bytes), max(experts, of_experts))
        return found


def compute_bytes(
    shape: GraphShape,
    settings: Settings,
    placement: Placement,
    gpus: int,
    *,
    every_token_outputs: bool = False,
) -> dict[str, int]:
    """Bytes of the trunk's graph buffers on each device that has one; `gpus` are in the machine.

    `every_token_outputs` counts logits for every token of a batch, as the engine's other programs
    want them; its server wants one row for each stream and draft.
    """
    outputs = settings.outputs
    if every_token_outputs:
        outputs = _batch(settings)
    return _Buffers(shape, settings, placement, gpus, outputs).by_device(shape)


def draft_bytes(shape: GraphShape, settings: Settings, placement: Placement) -> dict[str, int]:
    """The same for the draft context, which runs the MTP block alone."""
    batch = _batch(settings)
    width = max(shape.feed_forward, shape.attention) - 3 * shape.hidden
    size_bytes = _FLOAT * batch * width + _masks(shape, settings)
    size_bytes = max(size_bytes, _FLOAT * settings.parallel * 4 * (shape.model.vocabulary or 0))
    last = placement.blocks[-1] if placement.blocks else HOST
    if last == HOST:
        return {HOST: size_bytes}
    found = {HOST: _FLOAT * batch * 2 * shape.hidden + _masks(shape, settings), last: size_bytes}
    block = len(placement.blocks) - 1
    if block in placement.expert_blocks_on_host and batch >= _OFFLOAD_BATCH:
        first = placement.devices[1]
        found[first] = found.get(first, 0) + shape.largest_block_tensor[block][1]
    return found


class _Buffers:
    def __init__(
        self,
        shape: GraphShape,
        settings: Settings,
        placement: Placement,
        gpus: int,
        outputs: int,
    ) -> None:
        if gpus and settings.flash_attention == "auto" and shape.uneven_heads:
            settings = replace(settings, flash_attention="off")
        self.outputs = outputs
        self.settings = settings
        self.placement = placement
        self.gpus = gpus
        self.batch = _batch(settings)
        self.mask_bytes = _masks(shape, settings)
        self.row_bytes = _FLOAT * self.batch * shape.hidden

    def by_device(self, shape: GraphShape) -> dict[str, int]:
        whole = self._whole(shape)
        if not self.gpus:
            return {HOST: whole}
        on_gpu = [name for name in self.placement.devices if name != HOST]
        several = len(on_gpu) > 1 and self._all_on_gpus()
        if several:
            more = (_PIPELINE_COPIES - 1) * self.mask_bytes
            found = {HOST: 10 * self.row_bytes + _PIPELINE_COPIES * self.mask_bytes}
            for name in on_gpu:
                passed = 12 if name == on_gpu[0] else 7
                found[name] = whole + more + passed * self.row_bytes
            return found
        found = {HOST: 4 * self.row_bytes + self.mask_bytes}
        copied = self._copied_bytes(shape)
        first = on_gpu[0] if on_gpu else gpu_name(0)
        if copied or on_gpu:
            found[first] = whole + copied - self.row_bytes
        elif self.batch < _OFFLOAD_BATCH:
            found[HOST] = whole
        for name in on_gpu[1:]:
            found[name] = self._later_gpu(shape, name, whole)
        return found

    def _later_gpu(self, shape: GraphShape, name: str, whole: int) -> int:
        """A GPU that is not the first: without work on weights in host memory, which the first one
        takes over."""
        trunk = range(min(shape.model.layer_count, len(self.placement.blocks)))
        blocks = {block for block in trunk if self.placement.blocks[block] == name}
        if not blocks:
            return self._logits_bytes(shape)
        if blocks <= self.placement.expert_blocks_on_host and self.batch >= _OFFLOAD_BATCH:
            moments = (self._attention_bytes(shape), self._logits_bytes(shape))
            return max(moments) + self.mask_bytes
        return whole - 2 * self.row_bytes

    def _whole(self, shape: GraphShape) -> int:
        """The buffer if one device does it all."""
        moments = [
            self._attention_bytes(shape),
            _FLOAT * self.batch * shape.feed_forward,
            self._logits_bytes(shape) + 5 * self.row_bytes,
        ]
        if shape.convolution:
            moments.append(_FLOAT * self._delta_net(shape))
        return max(moments) + self.mask_bytes

    def _attention_bytes(self, shape: GraphShape) -> int:
        size_bytes = _FLOAT * self.batch * shape.attention
        if self.settings.flash_attention == "off":
            cells = _cells(self.settings)
            cells = cells // 4 if shape.compressed else cells
            size_bytes += _FLOAT * self.batch * cells * shape.heads
        elif len(self.placement.devices) > 1:
            size_bytes += _copies_bytes(shape, self.settings)
        return size_bytes

    def _logits_bytes(self, shape: GraphShape) -> int:
        return _FLOAT * self.outputs * (shape.model.vocabulary or 0)

    def _delta_net(self, shape: GraphShape) -> int:
        sequences, drafts = self.settings.parallel, self.settings.mtp_depth
        states = 2 + drafts
        if sequences == 1:
            states = 3 + drafts if drafts else 1
        per_token = 5 * shape.hidden + 2 * shape.convolution + shape.inner
        return self.batch * per_token + sequences * (3 * shape.convolution + states * shape.state)

    def _all_on_gpus(self) -> bool:
        placement = self.placement
        whole = HOST not in (*placement.blocks, placement.output)
        settings = self.settings
        return (
            whole
            and not placement.expert_blocks_on_host
            and not settings.cache_on_host
            and not settings.expert_cache_bytes
        )

    def _copied_bytes(self, shape: GraphShape) -> int:
        """The largest tensor of weights in host memory that a GPU takes over for a large batch."""
        if self.batch < _OFFLOAD_BATCH:
            return 0
        largest = 0
        for block, (every, experts) in shape.largest_block_tensor.items():
            if block >= len(self.placement.blocks):
                continue
            if self.placement.blocks[block] == HOST:
                largest = max(largest, every)
            elif block in self.placement.expert_blocks_on_host:
                largest = max(largest, experts)
        return largest


def _copies_bytes(shape: GraphShape, settings: Settings) -> int:
    """A block's keys and values in f16, where the cache has them in another type."""
    streams = 1 if settings.unified else settings.parallel
    widest = 0
    for layer in shape.model.trunk_layers or ():
        for store in layer.stores:
            keys = store.key_width if settings.cache_type_k != "f16" else 0
            values = store.value_width if settings.cache_type_v != "f16" else 0
            cells = store.cells(_cells(settings), settings.ubatch)
            widest = max(widest, (keys + values) * cells)
    return 2 * widest * streams


def _batch(settings: Settings) -> int:
    at_once = settings.tokens_at_once(accelerated=False)  # of which several ubatches may be made
    return min(settings.ubatch, at_once, settings.context * settings.parallel)


def _cells(settings: Settings) -> int:
    """Cells that one stream's queries see."""
    tokens = settings.context * (settings.parallel if settings.unified else 1)
    return tokens + -tokens % 256


def _masks(shape: GraphShape, settings: Settings) -> int:
    batch, cells = _batch(settings), _cells(settings)
    value_bytes = 2 if settings.flash_attention != "off" else _FLOAT
    total = cells // 4 if shape.compressed else cells
    if shape.window is not None:
        streams = settings.parallel if settings.unified else 1
        seen = min(cells, shape.window * streams + settings.ubatch)
        total += seen + -seen % 256
    return batch * total * value_bytes


def _is_weight(tensor: TensorInfo) -> bool:
    return tensor.name.endswith(".weight")
