"""Tensor lists of every architecture family, as functions of the published configuration.

Tensor names and shapes follow the engine's loader; each function returns a `Shape` that can be
written as a header (`write_header`) or filled with random weights (`tests/tiny_models.py`).
"""

from __future__ import annotations

from .shape import Shape


def _base(
    architecture: str,
    *,
    layers: int,
    hidden: int,
    ffn: int,
    heads: int,
    kv_heads: int | list[int],
    context: int,
    head_dim: int | None = None,
    rope_dim: int | None = None,
    mtp: int = 0,
) -> Shape:
    shape = Shape(architecture)
    shape.set(
        block_count=layers + mtp,
        context_length=context,
        embedding_length=hidden,
        feed_forward_length=ffn,
        attention__head_count=heads,
        attention__head_count_kv=kv_heads,
        attention__layer_norm_rms_epsilon=1e-6,
        rope__freq_base=1_000_000.0,
        rope__dimension_count=rope_dim or head_dim or hidden // heads,
    )
    if head_dim is not None:
        shape.set(attention__key_length=head_dim, attention__value_length=head_dim)
    if mtp:
        shape.set(nextn_predict_layers=mtp)
    return shape


def _ends(shape: Shape, hidden: int, vocab: int, *, tied: bool, norm: str = "output_norm") -> None:
    shape.add("token_embd.weight", hidden, vocab)
    shape.add(f"{norm}.weight", hidden)
    if not tied:
        shape.add("output.weight", hidden, vocab)


def _attention(
    shape: Shape,
    layer: int,
    hidden: int,
    q: int,
    kv: int,
    *,
    out: int | None = None,
    bias: bool = False,
    qk_norm: tuple[int, int] | None = None,
    out_bias: bool = False,
) -> None:
    """`q` and `kv` are the widths of the projections; `out` is the output projection's input."""
    block = f"blk.{layer}"
    shape.add(f"{block}.attn_norm.weight", hidden)
    for name, width in (("q", q), ("k", kv), ("v", kv)):
        shape.add(f"{block}.attn_{name}.weight", hidden, width)
        if bias:
            shape.add(f"{block}.attn_{name}.bias", width)
    shape.add(f"{block}.attn_output.weight", out or q, hidden)
    if out_bias:
        shape.add(f"{block}.attn_output.bias", hidden)
    if qk_norm:
        shape.add(f"{block}.attn_q_norm.weight", qk_norm[0])
        shape.add(f"{block}.attn_k_norm.weight", qk_norm[1])


def _dense_ffn(shape: Shape, layer: int, hidden: int, ffn: int, suffix: str = "") -> None:
    block = f"blk.{layer}"
    shape.add(f"{block}.ffn_gate{suffix}.weight", hidden, ffn)
    shape.add(f"{block}.ffn_up{suffix}.weight", hidden, ffn)
    shape.add(f"{block}.ffn_down{suffix}.weight", ffn, hidden)


def _experts(
    shape: Shape, layer: int, hidden: int, ffn: int, experts: int, *, probs_bias: bool = False
) -> None:
    block = f"blk.{layer}"
    shape.add(f"{block}.ffn_gate_inp.weight", hidden, experts)
    if probs_bias:
        shape.add(f"{block}.exp_probs_b.bias", experts)
    shape.add(f"{block}.ffn_gate_exps.weight", hidden, ffn, experts)
    shape.add(f"{block}.ffn_up_exps.weight", hidden, ffn, experts)
    shape.add(f"{block}.ffn_down_exps.weight", ffn, hidden, experts)


def _nextn(shape: Shape, layer: int, hidden: int, *, own_tables: int = 0) -> None:
    """The tensors that make a block an MTP block; `own_tables` is the vocabulary if it has its own
    embedding and head."""
    block = f"blk.{layer}.nextn"
    shape.add(f"{block}.eh_proj.weight", 2 * hidden, hidden)
    shape.add(f"{block}.enorm.weight", hidden)
    shape.add(f"{block}.hnorm.weight", hidden)
    if own_tables:
        shape.add(f"{block}.embed_tokens.weight", hidden, own_tables)
        shape.add(f"{block}.shared_head_head.weight", hidden, own_tables)
    shape.add(f"{block}.shared_head_norm.weight", hidden)


def llama(
    *,
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    ffn: int,
    vocab: int,
    context: int = 32768,
    experts: int = 0,
    used: int = 0,
    tied: bool = False,
    architecture: str = "llama",
    bias: bool = False,
    qk_norm: bool = False,
    head_dim: int | None = None,
) -> Shape:
    """Dense llama, qwen2 (`bias`), qwen3 (`qk_norm`), and Mixtral (`experts`)."""
    dim = head_dim or hidden // heads
    shape = _base(
        architecture,
        layers=layers,
        hidden=hidden,
        ffn=ffn,
        heads=heads,
        kv_heads=kv_heads,
        context=context,
        head_dim=head_dim,
    )
    if experts:
        shape.set(expert_count=experts, expert_used_count=used)
    _ends(shape, hidden, vocab, tied=tied)
    for layer in range(layers):
        _attention(
            shape,
            layer,
            hidden,
            heads * dim,
            kv_heads * dim,
            bias=bias,
            qk_norm=(dim, dim) if qk_norm else None,
        )
        shape.add(f"blk.{layer}.ffn_norm.weight", hidden)
        if experts:
            _experts(shape, layer, hidden, ffn, experts)
        else:
            _dense_ffn(shape, layer, hidden, ffn)
    return shape


def gemma3(
    *,
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    ffn: int,
    vocab: int,
    window: int,
    context: int = 131072,
) -> Shape:
    """Tied; every sixth layer attends fully, the others through a window."""
    shape = _base(
        "gemma3",
        layers=layers,
        hidden=hidden,
        ffn=ffn,
        heads=heads,
        kv_heads=kv_heads,
        context=context,
        head_dim=head_dim,
    )
    shape.set(attention__sliding_window=window)
    _ends(shape, hidden, vocab, tied=True)
    for layer in range(layers):
        _attention(
            shape,
            layer,
            hidden,
            heads * head_dim,
            kv_heads * head_dim,
            qk_norm=(head_dim, head_dim),
        )
        for norm in ("post_attention_norm", "ffn_norm", "post_ffw_norm"):
            shape.add(f"blk.{layer}.{norm}.weight", hidden)
        _dense_ffn(shape, layer, hidden, ffn)
    return shape


def qwen3moe(
    *,
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    ffn: int,
    expert_ffn: int,
    experts: int,
    used: int,
    vocab: int,
    context: int = 40960,
    tied: bool = False,
) -> Shape:
    shape = _base(
        "qwen3moe",
        layers=layers,
        hidden=hidden,
        ffn=ffn,
        heads=heads,
        kv_heads=kv_heads,
        context=context,
        head_dim=head_dim,
    )
    shape.set(expert_count=experts, expert_used_count=used, expert_feed_forward_length=expert_ffn)
    _ends(shape, hidden, vocab, tied=tied)
    for layer in range(layers):
        _attention(
            shape,
            layer,
            hidden,
            heads * head_dim,
            kv_heads * head_dim,
            qk_norm=(head_dim, head_dim),
        )
        shape.add(f"blk.{layer}.ffn_norm.weight", hidden)
        _experts(shape, layer, hidden, expert_ffn, experts)
    return shape


def qwen2moe(
    *,
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    ffn: int,
    expert_ffn: int,
    shared_ffn: int,
    experts: int,
    used: int,
    vocab: int,
    context: int = 32768,
) -> Shape:
    shape = _base(
        "qwen2moe",
        layers=layers,
        hidden=hidden,
        ffn=ffn,
        heads=heads,
        kv_heads=kv_heads,
        context=context,
    )
    shape.set(
        expert_count=experts,
        expert_used_count=used,
        expert_feed_forward_length=expert_ffn,
        expert_shared_feed_forward_length=shared_ffn,
    )
    _ends(shape, hidden, vocab, tied=False)
    kv = kv_heads * hidden // heads
    for layer in range(layers):
        _attention(shape, layer, hidden, hidden, kv, bias=True)
        shape.add(f"blk.{layer}.ffn_norm.weight", hidden)
        _experts(shape, layer, hidden, expert_ffn, experts)
        shape.add(f"blk.{layer}.ffn_gate_inp_shexp.weight", hidden)
        _dense_ffn(shape, layer, hidden, shared_ffn, "_shexp")
    return shape


def olmoe(
    *,
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    ffn: int,
    experts: int,
    used: int,
    vocab: int,
    context: int = 4096,
) -> Shape:
    shape = _base(
        "olmoe",
        layers=layers,
        hidden=hidden,
        ffn=ffn,
        heads=heads,
        kv_heads=kv_heads,
        context=context,
    )
    shape.set(expert_count=experts, expert_used_count=used)
    _ends(shape, hidden, vocab, tied=False)
    kv = kv_heads * hidden // heads
    for layer in range(layers):
        _attention(shape, layer, hidden, hidden, kv, qk_norm=(hidden, kv))
        shape.add(f"blk.{layer}.ffn_norm.weight", hidden)
        _experts(shape, layer, hidden, ffn, experts)
    return shape


def gpt_oss(
    *,
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    expert_ffn: int,
    experts: int,
    used: int,
    vocab: int,
    window: int = 128,
    context: int = 131072,
) -> Shape:
    shape = _base(
        "gpt-oss",
        layers=layers,
        hidden=hidden,
        ffn=expert_ffn,
        heads=heads,
        kv_heads=kv_heads,
        context=context,
        head_dim=head_dim,
    )
    shape.set(
        expert_count=experts,
        expert_used_count=used,
        expert_feed_forward_length=expert_ffn,
        attention__sliding_window=window,
        rope__scaling__type="yarn",
        rope__scaling__factor=32.0,
        rope__scaling__original_context_length=4096,
    )
    _ends(shape, hidden, vocab, tied=False)
    for layer in range(layers):
        block = f"blk.{layer}"
        _attention(
            shape,
            layer,
            hidden,
            heads * head_dim,
            kv_heads * head_dim,
            bias=True,
            out_bias=True,
        )
        shape.add(f"{block}.post_attention_norm.weight", hidden)
        shape.add(f"{block}.attn_sinks.weight", heads)
        _experts(shape, layer, hidden, expert_ffn, experts)
        shape.add(f"{block}.ffn_gate_inp.bias", experts)
        shape.add(f"{block}.ffn_gate_exps.bias", expert_ffn, experts)
        shape.add(f"{block}.ffn_up_exps.bias", expert_ffn, experts)
        shape.add(f"{block}.ffn_down_exps.bias", hidden, experts)
    return shape


def glm4moe(
    *,
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    ffn: int,
    expert_ffn: int,
    experts: int,
    used: int,
    shared: int,
    dense_lead: int,
    vocab: int,
    mtp: int = 1,
    qk_norm: bool = False,
    context: int = 131072,
) -> Shape:
    shape = _base(
        "glm4moe",
        layers=layers,
        hidden=hidden,
        ffn=ffn,
        heads=heads,
        kv_heads=kv_heads,
        context=context,
        head_dim=head_dim,
        rope_dim=head_dim // 2,
        mtp=mtp,
    )
    shape.set(
        expert_count=experts,
        expert_used_count=used,
        expert_feed_forward_length=expert_ffn,
        expert_shared_count=shared,
        leading_dense_block_count=dense_lead,
        expert_gating_func=2,
        expert_weights_norm=True,
        expert_weights_scale=1.0,
    )
    _ends(shape, hidden, vocab, tied=False)
    for layer in range(layers + mtp):
        _attention(
            shape,
            layer,
            hidden,
            heads * head_dim,
            kv_heads * head_dim,
            bias=True,
            qk_norm=(head_dim, head_dim) if qk_norm else None,
        )
        shape.add(f"blk.{layer}.post_attention_norm.weight", hidden)
        if layer < dense_lead:
            _dense_ffn(shape, layer, hidden, ffn)
        else:
            _experts(shape, layer, hidden, expert_ffn, experts, probs_bias=True)
            _dense_ffn(shape, layer, hidden, expert_ffn * shared, "_shexp")
        if layer >= layers:
            _nextn(shape, layer, hidden, own_tables=vocab)
    return shape


def granitemoe(
    *,
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    ffn: int,
    experts: int,
    used: int,
    vocab: int,
    shared_ffn: int = 0,
    context: int = 4096,
) -> Shape:
    shape = _base(
        "granitemoe",
        layers=layers,
        hidden=hidden,
        ffn=ffn,
        heads=heads,
        kv_heads=kv_heads,
        context=context,
    )
    shape.set(expert_count=experts, expert_used_count=used, logit_scale=6.0)
    if shared_ffn:
        shape.set(expert_shared_feed_forward_length=shared_ffn)
    _ends(shape, hidden, vocab, tied=True)
    kv = kv_heads * hidden // heads
    for layer in range(layers):
        _attention(shape, layer, hidden, hidden, kv)
        shape.add(f"blk.{layer}.ffn_norm.weight", hidden)
        _experts(shape, layer, hidden, ffn, experts)
        if shared_ffn:
            _dense_ffn(shape, layer, hidden, shared_ffn, "_shexp")
    return shape


def lfm2(
    *,
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    attention_layers: tuple[int, ...],
    ffn: int,
    vocab: int,
    expert_ffn: int = 0,
    experts: int = 0,
    used: int = 0,
    dense_lead: int = 0,
    conv: int = 3,
    context: int = 128000,
) -> Shape:
    """LFM2 (dense) or, with `experts`, LFM2-MoE. Short convolutions where there is no attention."""
    shape = _base(
        "lfm2moe" if experts else "lfm2",
        layers=layers,
        hidden=hidden,
        ffn=ffn,
        heads=heads,
        kv_heads=[kv_heads if layer in attention_layers else 0 for layer in range(layers)],
        context=context,
    )
    shape.set(shortconv__l_cache=conv, vocab_size=vocab)
    if experts:
        shape.set(
            expert_count=experts,
            expert_used_count=used,
            expert_feed_forward_length=expert_ffn,
            leading_dense_block_count=dense_lead,
            expert_gating_func=2,
        )
    _ends(shape, hidden, vocab, tied=True, norm="token_embd_norm")
    dim = hidden // heads
    for layer in range(layers):
        block = f"blk.{layer}"
        shape.add(f"{block}.ffn_norm.weight", hidden)
        if experts and layer >= dense_lead:
            _experts(shape, layer, hidden, expert_ffn, experts, probs_bias=True)
        else:
            _dense_ffn(shape, layer, hidden, ffn)
        if layer in attention_layers:
            _attention(shape, layer, hidden, hidden, kv_heads * dim, qk_norm=(dim, dim))
        else:
            shape.add(f"{block}.attn_norm.weight", hidden)
            shape.add(f"{block}.shortconv.conv.weight", conv, hidden)
            shape.add(f"{block}.shortconv.in_proj.weight", hidden, 3 * hidden)
            shape.add(f"{block}.shortconv.out_proj.weight", hidden, hidden)
    return shape


def qwen35(
    *,
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    linear_v_heads: int,
    linear_k_heads: int,
    linear_dim: int,
    vocab: int,
    ffn: int = 0,
    expert_ffn: int = 0,
    shared_ffn: int = 0,
    experts: int = 0,
    used: int = 0,
    mtp: int = 0,
    mtp_own_tables: bool = False,
    interval: int = 4,
    conv: int = 4,
    tied: bool = False,
    context: int = 262144,
    architecture: str | None = None,
) -> Shape:
    """Gated DeltaNet hybrids: qwen35 (dense), qwen35moe, qwen3next (beta and alpha fused)."""
    architecture = architecture or ("qwen35moe" if experts else "qwen35")
    shape = _base(
        architecture,
        layers=layers,
        hidden=hidden,
        ffn=ffn or expert_ffn * max(used, 1),
        heads=heads,
        kv_heads=kv_heads,
        context=context,
        head_dim=head_dim,
        rope_dim=head_dim // 4,
        mtp=mtp,
    )
    key_dim, value_dim = linear_k_heads * linear_dim, linear_v_heads * linear_dim
    shape.set(
        full_attention_interval=interval,
        ssm__conv_kernel=conv,
        ssm__inner_size=value_dim,
        ssm__state_size=linear_dim,
        ssm__time_step_rank=linear_v_heads,
        ssm__group_count=linear_k_heads,
    )
    if architecture != "qwen3next":
        quarter = head_dim // 4 // 2  # the rotary pairs, split over text and image axes
        third = quarter // 3
        shape.set(rope__dimension_sections=[quarter - 2 * third, third, third, 0])
    if experts:
        shape.set(
            expert_count=experts,
            expert_used_count=used,
            expert_feed_forward_length=expert_ffn,
            expert_shared_feed_forward_length=shared_ffn,
        )
    _ends(shape, hidden, vocab, tied=tied)
    for layer in range(layers + mtp):
        block = f"blk.{layer}"
        if layer < layers and (layer + 1) % interval:
            shape.add(f"{block}.attn_norm.weight", hidden)
            shape.add(f"{block}.attn_qkv.weight", hidden, 2 * key_dim + value_dim)
            shape.add(f"{block}.attn_gate.weight", hidden, value_dim)
            shape.add(f"{block}.ssm_conv1d.weight", conv, 2 * key_dim + value_dim)
            shape.add(f"{block}.ssm_dt.bias", linear_v_heads)
            shape.add(f"{block}.ssm_a", linear_v_heads)
            if architecture == "qwen3next":
                shape.add(f"{block}.ssm_ba.weight", hidden, 2 * linear_v_heads)
            else:
                shape.add(f"{block}.ssm_beta.weight", hidden, linear_v_heads)
                shape.add(f"{block}.ssm_alpha.weight", hidden, linear_v_heads)
            shape.add(f"{block}.ssm_norm.weight", linear_dim)
            shape.add(f"{block}.ssm_out.weight", value_dim, hidden)
        else:
            # The query projection is twice as wide: its second half gates the output.
            _attention(
                shape,
                layer,
                hidden,
                2 * heads * head_dim,
                kv_heads * head_dim,
                out=heads * head_dim,
                qk_norm=(head_dim, head_dim),
            )
        shape.add(f"{block}.post_attention_norm.weight", hidden)
        if experts:
            _experts(shape, layer, hidden, expert_ffn, experts)
            shape.add(f"{block}.ffn_gate_inp_shexp.weight", hidden)
            _dense_ffn(shape, layer, hidden, shared_ffn, "_shexp")
        else:
            _dense_ffn(shape, layer, hidden, ffn)
        if layer >= layers:
            _nextn(shape, layer, hidden, own_tables=vocab if mtp_own_tables else 0)
    return shape


def deepseek2(
    *,
    layers: int,
    hidden: int,
    heads: int,
    q_lora: int,
    kv_lora: int,
    rope_dim: int,
    nope_dim: int,
    value_dim: int,
    ffn: int,
    expert_ffn: int,
    experts: int,
    used: int,
    shared: int,
    dense_lead: int,
    vocab: int,
    mtp: int = 0,
    sigmoid: bool = True,
    absorbed: bool = True,
    context: int = 163840,
) -> Shape:
    """Multi-head latent attention. `absorbed` files hold the up-projections split and transposed,
    so that the cache is one latent vector per layer; older files keep `attn_kv_b` whole, and cost
    a full cache. `q_lora` 0 is a plain query projection (V2-Lite)."""
    shape = _base(
        "deepseek2",
        layers=layers,
        hidden=hidden,
        ffn=ffn,
        heads=heads,
        kv_heads=1 if absorbed else heads,
        context=context,
        rope_dim=rope_dim,
        mtp=mtp,
    )
    key_dim = nope_dim + rope_dim
    shape.set(
        attention__key_length=kv_lora + rope_dim if absorbed else key_dim,
        attention__value_length=kv_lora if absorbed else value_dim,
        attention__kv_lora_rank=kv_lora,
        leading_dense_block_count=dense_lead,
        expert_count=experts,
        expert_used_count=used,
        expert_shared_count=shared,
        expert_feed_forward_length=expert_ffn,
        expert_weights_scale=2.5,
        expert_weights_norm=True,
        vocab_size=vocab,
        rope__scaling__type="yarn",
        rope__scaling__factor=40.0,
        rope__scaling__original_context_length=4096,
        rope__scaling__yarn_log_multiplier=0.1,
    )
    if q_lora:
        shape.set(attention__q_lora_rank=q_lora)
    if absorbed:
        shape.set(attention__key_length_mla=key_dim, attention__value_length_mla=value_dim)
    if sigmoid:
        shape.set(expert_gating_func=2)
    _ends(shape, hidden, vocab, tied=False)
    for layer in range(layers + mtp):
        block = f"blk.{layer}"
        shape.add(f"{block}.attn_norm.weight", hidden)
        if q_lora:
            shape.add(f"{block}.attn_q_a.weight", hidden, q_lora)
            shape.add(f"{block}.attn_q_a_norm.weight", q_lora)
            shape.add(f"{block}.attn_q_b.weight", q_lora, heads * key_dim)
        else:
            shape.add(f"{block}.attn_q.weight", hidden, heads * key_dim)
        shape.add(f"{block}.attn_kv_a_mqa.weight", hidden, kv_lora + rope_dim)
        shape.add(f"{block}.attn_kv_a_norm.weight", kv_lora)
        if absorbed:
            shape.add(f"{block}.attn_k_b.weight", nope_dim, kv_lora, heads)
            shape.add(f"{block}.attn_v_b.weight", kv_lora, value_dim, heads)
        else:
            shape.add(f"{block}.attn_kv_b.weight", kv_lora, heads * (nope_dim + value_dim))
        shape.add(f"{block}.attn_output.weight", heads * value_dim, hidden)
        shape.add(f"{block}.ffn_norm.weight", hidden)
        if layer < dense_lead:
            _dense_ffn(shape, layer, hidden, ffn)
        else:
            _experts(shape, layer, hidden, expert_ffn, experts, probs_bias=sigmoid)
            _dense_ffn(shape, layer, hidden, expert_ffn * shared, "_shexp")
        if layer >= layers:
            _nextn(shape, layer, hidden, own_tables=vocab)
    return shape


def deepseek4(
    *,
    hidden: int,
    heads: int,
    head_dim: int,
    rope_dim: int,
    q_lora: int,
    o_lora: int,
    o_groups: int,
    ratios: list[int],
    expert_ffn: int,
    experts: int,
    used: int,
    shared: int,
    hash_layers: int,
    indexer_heads: int,
    indexer_dim: int,
    indexer_top_k: int,
    vocab: int,
    window: int = 128,
    hyper: int = 4,
    mtp: int = 0,
    context: int = 1048576,
) -> Shape:
    """`ratios` holds one compression ratio per block, MTP blocks included: 0 (window only), 4
    (compressed, with an indexer that picks positions) or 128 (heavily compressed)."""
    layers = len(ratios) - mtp
    shape = _base(
        "deepseek4",
        layers=layers,
        hidden=hidden,
        ffn=expert_ffn,
        heads=heads,
        kv_heads=1,
        context=context,
        head_dim=head_dim,
        rope_dim=rope_dim,
        mtp=mtp,
    )
    shape.set(
        vocab_size=vocab,
        attention__q_lora_rank=q_lora,
        attention__sliding_window=window,
        attention__output_lora_rank=o_lora,
        attention__output_group_count=o_groups,
        attention__compress_rope_freq_base=40000.0,
        attention__compress_ratios=ratios,
        attention__indexer__head_count=indexer_heads,
        attention__indexer__key_length=indexer_dim,
        attention__indexer__top_k=indexer_top_k,
        hyper_connection__count=hyper,
        hyper_connection__sinkhorn_iterations=20,
        hyper_connection__epsilon=1e-6,
        hash_layer_count=hash_layers,
        expert_count=experts,
        expert_used_count=used,
        expert_shared_count=shared,
        expert_feed_forward_length=expert_ffn,
        expert_weights_scale=2.5,
        expert_weights_norm=True,
        expert_gating_func=4,
        swiglu_clamp_exp=10.0,
    )
    _ends(shape, hidden, vocab, tied=False)
    shape.add("output_hc_fn.weight", hyper * hidden, hyper)
    shape.add("output_hc_base.weight", hyper)
    shape.add("output_hc_scale.weight", 1)
    mix = (2 + hyper) * hyper
    for layer, ratio in enumerate(ratios):
        block = f"blk.{layer}"
        shape.add(f"{block}.attn_norm.weight", hidden)
        shape.add(f"{block}.attn_sinks.weight", heads)
        shape.add(f"{block}.attn_q_a.weight", hidden, q_lora)
        shape.add(f"{block}.attn_q_a_norm.weight", q_lora)
        shape.add(f"{block}.attn_q_b.weight", q_lora, heads * head_dim)
        shape.add(f"{block}.attn_kv.weight", hidden, head_dim)
        shape.add(f"{block}.attn_kv_a_norm.weight", head_dim)
        shape.add(f"{block}.attn_output_a.weight", heads * head_dim // o_groups, o_lora * o_groups)
        shape.add(f"{block}.attn_output_b.weight", o_groups * o_lora, hidden)
        for part in ("attn", "ffn"):
            shape.add(f"{block}.hc_{part}_fn.weight", hyper * hidden, mix)
            shape.add(f"{block}.hc_{part}_base.weight", mix)
            shape.add(f"{block}.hc_{part}_scale.weight", 3)
        if ratio:
            wide = (2 if ratio == 4 else 1) * head_dim
            shape.add(f"{block}.attn_compressor_kv.weight", hidden, wide)
            shape.add(f"{block}.attn_compressor_gate.weight", hidden, wide)
            shape.add(f"{block}.attn_compressor_ape.weight", wide, ratio)
            shape.add(f"{block}.attn_compressor_norm.weight", head_dim)
        if ratio == 4:
            shape.add(f"{block}.indexer.proj.weight", hidden, indexer_heads)
            shape.add(f"{block}.indexer.attn_q_b.weight", q_lora, indexer_heads * indexer_dim)
            shape.add(f"{block}.indexer_compressor_kv.weight", hidden, 2 * indexer_dim)
            shape.add(f"{block}.indexer_compressor_gate.weight", hidden, 2 * indexer_dim)
            shape.add(f"{block}.indexer_compressor_ape.weight", 2 * indexer_dim, ratio)
            shape.add(f"{block}.indexer_compressor_norm.weight", indexer_dim)
        shape.add(f"{block}.ffn_norm.weight", hidden)
        _experts(shape, layer, hidden, expert_ffn, experts, probs_bias=layer >= hash_layers)
        if layer < hash_layers:
            shape.add(f"{block}.ffn_gate_tid2eid.weight", used, vocab)
        _dense_ffn(shape, layer, hidden, expert_ffn * shared, "_shexp")
        if layer >= layers:
            _nextn(shape, layer, hidden)
    return shape
