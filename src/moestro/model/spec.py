"""What a model file says: the facts that planning, checks and people work from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from moestro.findings import Finding
from moestro.model import cache
from moestro.model.cache import Layer
from moestro.model.roles import Role, is_lookup
from moestro.model.skeleton import Skeleton

FileFormat = Literal["gguf", "safetensors"]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor. `shape` starts with the row length; `layer` is None outside the blocks.

    `elements` counts parameters: of formats that pack several into one stored number the
    parameters, and none for scales that are stored as tensors of their own.
    `file` is an index into `ModelSpec.files`.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    elements: int
    size_bytes: int
    role: Role
    layer: int | None
    file: int = 0

    @property
    def is_routed_expert(self) -> bool:
        """Multi-token prediction blocks have experts too, but their role is MTP: so the name
        decides."""
        return self.role is Role.ROUTED_EXPERTS or "exps." in self.name


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One part. `size_bytes` is its whole length, None if a server did not say."""

    location: str
    size_bytes: int | None
    tensors: int


@dataclass(frozen=True, slots=True)
class Experts:
    """`count` routed experts in each of `layers` trunk blocks, of which a token uses `used`.

    `gating`: softmax, sigmoid, softmax-of-chosen, sqrt-softplus, or unknown.
    """

    count: int
    used: int
    shared: int
    gating: str
    layers: int

    def to_json(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "used": self.used,
            "shared": self.shared,
            "gating": self.gating,
            "layers": self.layers,
        }


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How positions beyond the original context are reached: `yarn`, `linear`, …"""

    kind: str
    factor: float | None
    original_context: int | None


@dataclass(frozen=True, slots=True)
class Projector:
    """The vision or audio part that belongs to a model. `location` is None if it lies in the
    model's own files."""

    location: str | None
    size_bytes: int | None


@dataclass(frozen=True)
class ModelSpec:
    """A model file, read. Lengths are in tokens or values, sizes in bytes; unknown is None.

    `mtp_layers` counts multi-token prediction blocks whose tensors are there. `layers` is None
    where the architecture's cache is not known. `chat_template_bytes` is the template's length; of
    one too long to be kept `chat_template` is None. `tool_template` is the one that engines take
    in its place where a request brings tools, if the file has such a one. `skeleton` is what an
    engine needs for a dry run (see `skeleton.write_skeleton`); only a GGUF has one.
    """

    architecture: str
    family_known: bool
    format: FileFormat
    name: str | None
    quantization: str | None
    files: tuple[ModelFile, ...]
    tensors: tuple[TensorInfo, ...]
    layers: tuple[Layer, ...] | None
    layer_count: int
    experts: Experts | None
    mtp_layers: int
    context_length: int | None
    embedding_length: int | None
    vocabulary: int | None
    rope_scaling: RopeScaling | None
    tokenizer: str | None
    chat_template: str | None
    projector: Projector | None
    findings: tuple[Finding, ...]
    transferred_bytes: int
    attention_heads: int | None = None
    skeleton: Skeleton | None = None
    chat_template_bytes: int | None = None
    tool_template: str | None = None
    tool_template_bytes: int | None = None

    @cached_property
    def trunk_layers(self) -> tuple[Layer, ...] | None:
        """The blocks that every token passes: of multi-token prediction only what the trunk's cache
        keeps for it."""
        if self.layers is None:
            return None
        return tuple(
            replace(layer, stores=layer.trunk_stores) if layer.mtp else layer
            for layer in self.layers
            if not layer.mtp or layer.trunk_stores
        )

    @cached_property
    def block_count(self) -> int:
        """Blocks of the file, multi-token prediction included: llama.cpp's `block_count`."""
        numbers = [tensor.layer for tensor in self.tensors if tensor.layer is not None]
        return max([self.layer_count, *(number + 1 for number in numbers)])

    @cached_property
    def expert_blocks(self) -> tuple[int, ...]:
        """Blocks with routed experts, in their order; multi-token prediction blocks among them."""
        found = {t.layer for t in self.tensors if t.layer is not None and t.is_routed_expert}
        return tuple(sorted(found))

    @cached_property
    def tensor_bytes(self) -> int:
        """Tensor data of all files, without padding."""
        return sum(tensor.size_bytes for tensor in self.tensors)

    @cached_property
    def parameters(self) -> int:
        """Every tensor in the files, multi-token prediction and embedding table included."""
        return sum(tensor.elements for tensor in self.tensors)

    @cached_property
    def tied_embeddings(self) -> bool:
        """The embedding table is the output head too: it is read whole for each token."""
        roles = {tensor.role for tensor in self.tensors}
        return Role.EMBEDDING in roles and Role.OUTPUT not in roles

    @cached_property
    def parameters_active(self) -> int:
        """Parameters read for one token: everything but the embedding table (a look-up, unless it
        is the head too), multi-token prediction, and the experts that are not chosen."""
        return self._per_token("elements")

    @cached_property
    def bytes_read_per_token(self) -> int:
        """Bytes of weights read for one token of decoding; the cache comes on top."""
        return self._per_token("size_bytes")

    @cached_property
    def bytes_by_role(self) -> dict[Role, int]:
        """Every role, in the order of their definition; the values add up to `tensor_bytes`."""
        counts = Counter[Role]()
        for tensor in self.tensors:
            counts[tensor.role] += tensor.size_bytes
        return {role: counts[role] for role in Role}

    @cached_property
    def bytes_by_type(self) -> dict[str, int]:
        """Tensor types, the largest first."""
        counts = Counter[str]()
        for tensor in self.tensors:
            counts[tensor.type] += tensor.size_bytes
        return dict(counts.most_common())

    @cached_property
    def file_bytes(self) -> int | None:
        """Length of all files together."""
        sizes = [file.size_bytes for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @cached_property
    def cache_bytes_per_token(self) -> int | None:
        """Growth of an f16 cache with each token, trunk only; windows do not grow."""
        return None if self.trunk_layers is None else cache.bytes_per_token(self.trunk_layers)

    @cached_property
    def window_bytes_per_sequence(self) -> int | None:
        """Bytes of an f16 cache's windows once they are full, trunk only."""
        return None if self.trunk_layers is None else cache.window_bytes(self.trunk_layers)

    @cached_property
    def recurrent_bytes_per_sequence(self) -> int | None:
        return None if self.trunk_layers is None else cache.state_bytes(self.trunk_layers)

    def cache_bytes(
        self,
        context: int,
        parallel: int = 1,
        type_k: str = "f16",
        type_v: str = "f16",
        *,
        ubatch: int = cache.DEFAULT_UBATCH,
        unified: bool = False,
    ) -> int | None:
        """Bytes of the trunk's cache for `parallel` streams of `context` tokens, states included;
        None where the architecture's cache is not known."""
        if self.trunk_layers is None:
            return None
        return cache.cache_bytes(
            self.trunk_layers,
            context,
            parallel,
            type_k,
            type_v,
            ubatch=ubatch,
            unified=unified,
        )

    def _per_token(self, measure: Literal["elements", "size_bytes"]) -> int:
        count, used = (self.experts.count, self.experts.used) if self.experts else (1, 1)
        total = 0
        for tensor in self.tensors:
            amount: int = getattr(tensor, measure)
            if tensor.role is Role.MTP or _belongs_to_other_tower(tensor):
                continue
            if tensor.role is Role.ROUTED_EXPERTS:
                total += amount * used // count
            elif tensor.role is Role.EMBEDDING:
                total += amount if self.tied_embeddings and _is_token_table(tensor) else 0
            elif not is_lookup(tensor.name):
                total += amount
        return total


def _is_token_table(tensor: TensorInfo) -> bool:
    return "per_layer" not in tensor.name and "position" not in tensor.name


def _belongs_to_other_tower(tensor: TensorInfo) -> bool:
    """Vision and audio parts in a Hugging Face folder are not read while text is decoded."""
    return tensor.role is Role.OTHER and tensor.name.startswith(OTHER_TOWERS)


OTHER_TOWERS = (
    "visual.",
    "vision",
    "audio",
    "aligner.",
    "multi_modal_projector.",
    "model.visual.",
    "model.vision",
    "model.audio",
    "model.multi_modal_projector.",
)


def layers_with(tensors: Iterable[TensorInfo], role: Role) -> set[int]:
    """The blocks that hold a tensor of `role`."""
    return {tensor.layer for tensor in tensors if tensor.role is role and tensor.layer is not None}
