"""What a tensor is for, told from its name in a GGUF or Hugging Face file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum


class Role(StrEnum):
    """The values are the keys of `bytes` in `inspect --json`."""

    ROUTED_EXPERTS = "routed_experts"
    SHARED_EXPERTS = "shared_experts"
    ROUTER = "router"
    ATTENTION = "attention"
    RECURRENT = "recurrent"
    DENSE_FFN = "dense_ffn"
    EMBEDDING = "embedding"
    OUTPUT = "output"
    MTP = "mtp"
    OTHER = "other"


RoleRule = tuple[re.Pattern[str], Role]


def rules(*pairs: tuple[str, Role]) -> tuple[RoleRule, ...]:
    return tuple((re.compile(pattern), role) for pattern, role in pairs)


# The first rule that matches decides. They see the name after the layer number, or the whole name
# of a tensor outside the layers. GGUF names and Hugging Face names do not collide, so one list
# serves both. An architecture's own rules come before these.
_IN_LAYER = rules(
    # Multi-token prediction
    (r"nextn\.|eh_proj|enorm|hnorm|shared_head|embed_tokens", Role.MTP),
    # GGUF
    (r"ffn_(gate|up|down|gate_up)_(ch)?exps|ffn_(gate|up|down)\.\d+\.", Role.ROUTED_EXPERTS),
    (r"ffn_\w+_shexp", Role.SHARED_EXPERTS),
    (r"ffn_gate_inp|exp_probs_b|ffn_gate_tid2eid", Role.ROUTER),
    (r"ssm_|shortconv\.|time_mix_", Role.RECURRENT),
    (r"attn_(norm|norm_2|post_norm|out_norm)\.|(pre_|post_)?(ffn|ffw)_norm", Role.OTHER),
    (r"attn_|indexer|cross_attn_", Role.ATTENTION),
    (r"ffn_|channel_mix_", Role.DENSE_FFN),
    # Hugging Face
    (r"\w+\.experts\.", Role.ROUTED_EXPERTS),
    (r"\w+\.shared_experts?(_gate)?\.|shared_mlp\.", Role.SHARED_EXPERTS),
    (r"(mlp|block_sparse_moe|feed_forward|ffn)\.(gate|router)\.", Role.ROUTER),
    (r"\w+\.(e_score_correction_bias|expert_bias)", Role.ROUTER),
    (r"linear_attn\.|mamba\.|mixer\.", Role.RECURRENT),
    (r"(self_attn|attn|self_attention|attention)\.", Role.ATTENTION),
    (r"(mlp|feed_forward|ffn)\.", Role.DENSE_FFN),
)
_OUTSIDE = rules(
    (r"(per_layer_)?token_embd\.|position_embd\.|token_types\.", Role.EMBEDDING),
    (r"output\.(weight|bias|scale)", Role.OUTPUT),
    (r"nextn\.|mtp\.", Role.MTP),
    (r"(language_model\.)?lm_head\.|head\.(weight|scale)", Role.OUTPUT),
    (r"((language_)?model\.)*(embed_tokens|wte|word_embeddings)\.|embed\.weight", Role.EMBEDDING),
)
_LAYER = re.compile(
    r"(?:blk\.|(?:[a-z_]+\.)*?(?:layers|h|blocks)\.)(?P<layer>\d{1,4})\.(?P<rest>.+)"
)
_OTHER_TOWER = re.compile(
    r"(model\.)?(visual|vision|vision_tower|vision_model|audio_tower|audio|aligner|"
    r"multi_modal_projector|embed_vision)\."
)
_MTP_TOWER = re.compile(r"mtp\.(?:layers\.)?(?P<layer>\d{1,4})?")


def place(name: str) -> tuple[int | None, str]:
    """(layer, what follows the layer's number) of a tensor, or (None, name) outside the layers.

    Tensors of a vision or audio tower have layers of their own and count as outside.
    """
    if _OTHER_TOWER.match(name) or name.startswith("mtp."):
        return None, name
    match = _LAYER.match(name)
    if match is None:
        return None, name
    return int(match["layer"]), match["rest"]


def role_of(name: str, own_rules: Sequence[RoleRule] = ()) -> Role:
    """The role of a tensor in a trunk layer or outside the layers.

    `own_rules` are an architecture's. Whether a layer belongs to multi-token prediction is not in
    the name of most tensors: the caller knows which layers do.
    """
    if _OTHER_TOWER.match(name):
        return Role.OTHER
    layer, rest = place(name)
    if layer is None:
        return _first(rest, _OUTSIDE)
    return _first(rest, own_rules, _IN_LAYER)


def mtp_layer(name: str) -> int | None:
    """Which MTP layer a Hugging Face name such as `mtp.layers.0.…` speaks of; None if none."""
    match = _MTP_TOWER.match(name)
    return int(match["layer"]) if match and match["layer"] else None


def _first(rest: str, *lists: Sequence[RoleRule]) -> Role:
    for list_ in lists:
        for pattern, role in list_:
            if pattern.match(rest):
                return role
    return Role.OTHER


_LOOKUP = re.compile(
    r".*(token_embd\.|embed_tokens|position_embd|tid2eid|wte\.|word_embeddings|(^|\.)embed\.)"
)


def is_lookup(name: str) -> bool:
    """Whether a token reads single rows of this tensor instead of all of it."""
    return _LOOKUP.match(name) is not None
