"""What one pass through a model computes, read off its list of tensors.

A pass takes `tokens` tokens of `streams` sequences at once; `outputs` of them go through the head.
The result is a list of operations, without any opinion on how long they take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from moestro.model import ModelSpec, Role, TensorInfo
from moestro.model.cache import Layer, LayerKind
from moestro.model.spec import OTHER_TOWERS

Where = Callable[[TensorInfo], str]


@dataclass(frozen=True, slots=True)
class Pass:
    """One evaluation of the graph. `depth` cells lie in front of the first token of each stream.

    A prompt is `tokens` of one stream; decoding is one token of each stream.
    """

    tokens: int
    streams: int = 1
    depth: int = 0
    outputs: int = 1

    @property
    def per_stream(self) -> int:
        return self.tokens // self.streams


@dataclass(frozen=True, slots=True)
class Product:
    """Y = W·X: a matrix `row` → `rows` of `type`, with `columns` columns."""

    kind: str
    device: str
    type: str
    row: int
    rows: int
    columns: int

    @property
    def elements(self) -> int:
        return self.row * self.rows


@dataclass(frozen=True, slots=True)
class ExpertProduct:
    """The same for `tokens` tokens that each choose `used` of `count` matrices."""

    kind: str
    device: str
    type: str
    row: int
    rows: int
    count: int
    used: int
    tokens: int

    @property
    def elements(self) -> int:
        """Of one expert."""
        return self.row * self.rows


@dataclass(frozen=True, slots=True)
class Attention:
    """`queries` tokens of each of `streams` streams look back on `depth` cells, and on each other.

    `width` is values of key and value of all heads; `head` the key width of one and `kv_heads` the
    number of heads in the cache, if known.
    """

    device: str
    width: int
    head: int | None
    kv_heads: int | None
    latent: bool
    queries: int
    streams: int
    depth: int
    window: int | None
    type_k: str
    type_v: str

    @property
    def cells(self) -> float:
        """Cells that one query sees, on average."""
        mean = self.depth + (self.queries + 1) / 2
        return mean if self.window is None else min(mean, self.window)


@dataclass(frozen=True, slots=True)
class Recurrent:
    """A scan over states: `values` of them per stream, `channels` through a convolution."""

    device: str
    name: str
    values: int
    channels: int
    queries: int
    streams: int


@dataclass(frozen=True, slots=True)
class Small:
    """`count` operations of kind `name` that make `values` values each."""

    device: str
    name: str
    values: int
    count: int = 1


Operation = Product | ExpertProduct | Attention | Recurrent | Small


@dataclass(frozen=True)
class _Block:
    """The tensors of one block by the part of their name that follows the block's number."""

    index: int
    tensors: dict[str, TensorInfo] = field(default_factory=dict)

    def get(self, *names: str) -> TensorInfo | None:
        return next((self.tensors[name] for name in names if name in self.tensors), None)

    def length(self, name: str) -> int:
        tensor = self.tensors.get(name)
        return tensor.shape[0] if tensor is not None else 0

    def rows(self, *names: str) -> int:
        tensor = self.get(*names)
        return tensor.shape[1] if tensor is not None and len(tensor.shape) > 1 else 0


def operations(
    model: ModelSpec, batch: Pass, where: Where, *, type_k: str = "F16", type_v: str = "F16",
    mtp: bool = False,
) -> list[Operation]:  # fmt: skip
    """Everything that `batch` computes in the trunk, or in the MTP blocks (`mtp`).

    `where` names the device that holds a tensor. Names are those of GGUF files.
    """
    blocks = _blocks(model)
    layers = {layer.index: layer for layer in model.layers or ()}
    wanted = [index for index in sorted(blocks) if _is_mtp(layers, index, model) == mtp]
    found: list[Operation] = []
    for position, index in enumerate(wanted):
        # After the last block's attention only the tokens with an output go on.
        last = position == len(wanted) - 1
        found += _block(
            model, blocks[index], layers.get(index), batch, where, (type_k, type_v), last
        )
    found += _head(model, batch, where)
    return found


def _is_mtp(layers: dict[int, Layer], index: int, model: ModelSpec) -> bool:
    layer = layers.get(index)
    return layer.mtp if layer is not None else index >= model.layer_count


def _blocks(model: ModelSpec) -> dict[int, _Block]:
    blocks: dict[int, _Block] = {}
    for tensor in model.tensors:
        if tensor.layer is None or tensor.name.startswith(OTHER_TOWERS):
            continue
        rest = tensor.name.split(f".{tensor.layer}.", 1)[-1]
        blocks.setdefault(tensor.layer, _Block(tensor.layer)).tensors[rest] = tensor
    return blocks


def _head(model: ModelSpec, batch: Pass, where: Where) -> Iterable[Operation]:
    outside = {tensor.name: tensor for tensor in model.tensors if tensor.layer is None}
    table = outside.get("token_embd.weight")
    head = outside.get("output.weight")
    if head is None and table is not None:
        head = replace(table, role=Role.OUTPUT)  # the device of the head has a copy of the table
    if head is None or len(head.shape) < 2:
        return
    device = where(head)
    yield Small(device, "cont", head.shape[0] * batch.tokens)  # rows of the embedding table
    yield Small(device, "norm", head.shape[0] * batch.outputs)
    yield Product("head", device, head.type, head.shape[0], head.shape[1], batch.outputs)


def _block(
    model: ModelSpec, block: _Block, layer: Layer | None, batch: Pass, where: Where,
    types: tuple[str, str], last: bool,
) -> list[Operation]:  # fmt: skip
    found: list[Operation] = []
    any_tensor = next(iter(block.tensors.values()))
    home = where(block.get("attn_norm.weight", "ffn_norm.weight") or any_tensor)
    late = batch.outputs if last else batch.tokens
    for name, tensor in block.tensors.items():
        columns = late if _is_late(name) else batch.tokens
        found += _of_tensor(model, block, name, tensor, columns, where(tensor), home)
    hidden = model.embedding_length or 0
    found.append(Small(home, "add", hidden * late, 2))
    found += _mixing(block, layer, batch, home, types)
    found += _feed_forward(model, block, late, home)
    return found


def _is_late(name: str) -> bool:
    return name.startswith(("ffn_", "exp_probs_b", "post_ffw"))


def _of_tensor(
    model: ModelSpec, block: _Block, name: str, tensor: TensorInfo, columns: int, device: str,
    home: str,
) -> Iterable[Operation]:  # fmt: skip
    """The operation that a tensor itself stands for."""
    shape = tensor.shape
    if name.startswith(_NO_PRODUCT):
        return
    if len(shape) == 1:
        width = shape[0]
        if "norm" in name:
            yield Small(home, "norm", _normed(block, name, width) * columns)
        elif name.endswith(".bias") and "exps" not in name:
            yield Small(home, "add", width * columns)
        return
    if "_exps." in name or "_chexps." in name:
        experts = model.experts
        if len(shape) == 2:  # a bias for each expert
            yield Small(home, "add", shape[0] * columns * (experts.used if experts else 1))
            return
        used = experts.used if experts else 1
        yield ExpertProduct(
            "experts", device, tensor.type, shape[0], shape[1], shape[2], used, columns
        )
        return
    rows = 1
    for length in shape[1:]:
        rows *= length
    yield Product(_kind(tensor), device, tensor.type, shape[0], rows, columns)


_NO_PRODUCT = ("ssm_conv1d", "shortconv.conv", "ssm_a", "ssm_d", "ssm_dt.bias", "attn_sinks",
               "exp_probs_b", "nextn.embed_tokens", "nextn.shared_head_head", "ffn_gate_tid2eid",
               "rope_")  # fmt: skip


def _kind(tensor: TensorInfo) -> str:
    return "router" if tensor.role is Role.ROUTER else "dense"


def _normed(block: _Block, name: str, width: int) -> int:
    """Values that a norm makes for one token: some are applied to every head."""
    if name.startswith("attn_q_norm"):
        return max(block.rows("attn_q.weight"), width)
    if name.startswith("attn_k_norm"):
        return max(block.rows("attn_k.weight"), width)
    if name.startswith("ssm_norm"):
        return max(block.length("ssm_out.weight"), width)
    return width


def _mixing(
    block: _Block, layer: Layer | None, batch: Pass, device: str, types: tuple[str, str]
) -> Iterable[Operation]:
    """Attention or its recurrent stand-in."""
    if layer is not None and layer.kind is LayerKind.RECURRENT:
        yield from _recurrent(block, layer, batch, device)
        return
    if layer is None:
        return
    query = block.rows("attn_q.weight", "attn_q_b.weight")
    out = block.length("attn_output.weight") or query  # DeepSeek-V4 splits the projection
    if query >= 2 * out > 0:  # Qwen3.5 puts a gate beside each query
        for name in ("cont", "sigmoid", "mul"):
            yield Small(device, name, out * batch.tokens)
    for store in layer.stores:
        absorbed = block.get("attn_k_b.weight")
        if layer.kind is LayerKind.LATENT and absorbed is not None:
            latent, heads = absorbed.shape[1], absorbed.shape[-1]
            width = heads * (store.key_width + latent)
            head: int | None = store.key_width
            kv_heads: int | None = 1
            yield Small(device, "rope", heads * (store.key_width - latent) * batch.tokens)
            yield Small(device, "cont", heads * latent * batch.tokens, 3)
        else:
            width, head = 2 * out, _head_width(block, store.key_width, out)
            kv_heads = store.key_width // head if head else None
            yield Small(device, "rope", out * batch.tokens)
            yield Small(device, "rope", store.key_width * batch.tokens)
        for stored in filter(None, (store.key_width, store.value_width)):
            yield Small(device, "set_rows", stored * batch.tokens)
        yield Attention(
            device=device,
            width=width,
            head=head,
            kv_heads=kv_heads,
            latent=layer.kind is LayerKind.LATENT,
            queries=batch.per_stream,
            streams=batch.streams,
            depth=batch.depth // store.tokens_per_cell,
            window=store.window,
            type_k=types[0],
            type_v=types[1] if store.value_width else types[0],
        )


def _head_width(block: _Block, keys: int, queries: int) -> int | None:
    """Of one key. The header's tensors tell it where queries are normed by head; else it is one of
    the usual widths, by what divides both the keys and the queries."""
    if normed := block.length("attn_q_norm.weight"):
        return normed
    if sinks := block.length("attn_sinks.weight"):
        return queries // sinks
    fitting = [width for width in (64, 128, 256) if keys % width == 0 and queries % width == 0]
    return (128 if 128 in fitting and queries >= 3072 else fitting[0]) if fitting else None


def _recurrent(block: _Block, layer: Layer, batch: Pass, device: str) -> Iterable[Operation]:
    tokens = batch.tokens
    conv = block.get("ssm_conv1d.weight", "shortconv.conv.weight")
    channels = conv.shape[1] if conv is not None and len(conv.shape) > 1 else 0
    kernel = conv.shape[0] if conv is not None else 1
    values = max(layer.state_bytes // 4 - (kernel - 1) * channels, 0)
    name = "state_scan" if "ssm_d" in block.tensors or "ssm_d.weight" in block.tensors else (
        "gated_delta_net")  # fmt: skip
    yield Recurrent(device, name, values, channels, batch.per_stream, batch.streams)
    # The state is taken from the cache and put back.
    yield Small(device, "cont", layer.state_bytes // 4 * batch.streams, 2)
    inner = block.length("ssm_out.weight")
    if name == "gated_delta_net" and values:
        heads = block.length("ssm_a") or block.length("ssm_a.weight") or 1
        query_width = max((channels - inner) // 2, 1)
        yield Small(device, "l2_norm", query_width * tokens, 2)
        if query_width != inner:
            yield Small(device, "cont", inner * tokens, 2)
        yield Small(device, "sigmoid", heads * tokens, 2)
        yield Small(device, "add", heads * tokens, 3)
        yield Small(device, "silu", inner * tokens)
        yield Small(device, "mul", inner * tokens)
    elif channels:
        yield Small(device, "mul", channels * tokens, 2)


def _feed_forward(model: ModelSpec, block: _Block, tokens: int, device: str) -> Iterable[Operation]:
    experts = model.experts
    dense = block.rows("ffn_up.weight", "ffn_gate.weight")
    if dense:
        yield Small(device, "swiglu_split", dense * tokens)
    shared = block.rows("ffn_up_shexp.weight", "ffn_gate_shexp.weight")
    hidden = model.embedding_length or 0
    if shared:
        yield Small(device, "swiglu_split", shared * tokens)
        yield Small(device, "add", hidden * tokens)
        if "ffn_gate_inp_shexp.weight" in block.tensors:
            yield Small(device, "sigmoid", tokens)
            yield Small(device, "mul", hidden * tokens)
    routed = block.rows("ffn_up_exps.weight", "ffn_gate_up_exps.weight")
    if routed and experts is not None:
        yield Small(device, "soft_max", experts.count * tokens)
        yield Small(device, "argsort_top_k", experts.count * tokens)
        yield Small(device, "sum_rows", experts.used * tokens)
        yield Small(device, "mul", experts.used * tokens, 3)
        yield Small(device, "swiglu_split", routed * experts.used * tokens)
        yield Small(device, "weigh", hidden * experts.used * tokens)
        yield Small(device, "add", hidden * tokens, max(experts.used - 1, 0))


def product_types(model: ModelSpec) -> set[str]:
    """Tensor types that a pass multiplies with."""
    batch = Pass(1)
    found = operations(model, batch, lambda _: "") + operations(
        model, batch, lambda _: "", mtp=True
    )
    return {item.type for item in found if isinstance(item, Product | ExpertProduct)}


def attention_shapes(
    model: ModelSpec, type_k: str = "F16", type_v: str = "F16"
) -> set[tuple[int, int, str, str, int]]:
    """(key, value, type_k, type_v, heads in the cache), as the calibration names them."""
    found = operations(model, Pass(1), lambda _: "", type_k=type_k, type_v=type_v)
    return {
        (
            item.head,
            LATENT_VALUES if item.latent else item.head,
            item.type_k,
            item.type_v,
            item.kv_heads,
        )
        for item in found
        if isinstance(item, Attention) and item.head is not None and item.kv_heads is not None
    }


LATENT_VALUES = 512
"""Values per head of latent attention, in every published model."""
