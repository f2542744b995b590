"""Write a checkpoint as GGUF (architecture qwen35moe): `python -m forge.export`."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor

from forge import tokenizer
from forge.model import Attention, Block, Config, DeltaNet, Demo

HERE = Path(__file__).parent
CHECKPOINT = HERE / "work" / "checkpoint.pt"
TARGET = HERE.parent / "src" / "moestro" / "demo" / "moestro-demo.gguf"
LIMIT_BYTES = 40_000_000
CONTEXT = 4096
DESCRIPTION = (
    "A very small mixture-of-experts model with a trained multi-token-prediction block, made to "
    "try every part of moestro without a download. It tells short stories, adds and subtracts "
    "two-digit numbers and calls tools."
)


def load(path: Path = CHECKPOINT) -> tuple[Demo, dict[str, Any]]:
    """The model in float32, and the rest of the checkpoint."""
    state = torch.load(path, weights_only=False, map_location="cpu")
    model = Demo(Config(**state["config"]))
    model.load_state_dict(state["model"])
    return model.eval(), state


def block_tensors(i: int, block: Block) -> dict[str, Tensor]:
    """GGUF names of one decoder block, without the `.weight` ending where it is the rule."""
    named: dict[str, Tensor] = {
        "attn_norm": block.mixer_norm.weight,
        "post_attention_norm": block.ffn_norm.weight,
    }
    mixer, moe = block.mixer, block.ffn
    if isinstance(mixer, DeltaNet):
        named |= {
            "attn_qkv": mixer.qkv, "attn_gate": mixer.gate, "ssm_conv1d": mixer.conv,
            "ssm_beta": mixer.beta, "ssm_alpha": mixer.alpha, "ssm_norm": mixer.norm.weight,
            "ssm_out": mixer.out,
        }  # fmt: skip
    else:
        assert isinstance(mixer, Attention)
        named |= {
            "attn_q": mixer.q, "attn_k": mixer.k, "attn_v": mixer.v, "attn_output": mixer.out,
            "attn_q_norm": mixer.q_norm.weight, "attn_k_norm": mixer.k_norm.weight,
        }  # fmt: skip
    gate, up = moe.gate_up.chunk(2, 1)
    shared_gate, shared_up = moe.shared_gate_up.chunk(2, 0)
    named |= {
        "ffn_gate_inp": moe.router, "ffn_gate_exps": gate, "ffn_up_exps": up,
        "ffn_down_exps": moe.down, "ffn_gate_inp_shexp": moe.shared_gate,
        "ffn_gate_shexp": shared_gate, "ffn_up_shexp": shared_up, "ffn_down_shexp": moe.shared_down,
    }  # fmt: skip
    full = {f"blk.{i}.{name}.weight": t for name, t in named.items()}
    if isinstance(mixer, DeltaNet):
        full[f"blk.{i}.ssm_a"] = -mixer.a_log.exp()
        full[f"blk.{i}.ssm_dt.bias"] = mixer.dt_bias
    return full


def tensors(model: Demo) -> dict[str, Tensor]:
    result = {
        "token_embd.weight": model.embedding,
        "output_norm.weight": model.norm.weight,
        "output.weight": model.head,
    }
    for i, block in enumerate(model.blocks):
        result |= block_tensors(i, block)
    n, mtp = len(model.blocks), model.mtp
    result |= block_tensors(n, mtp.block)
    result |= {
        f"blk.{n}.nextn.eh_proj.weight": mtp.eh_proj,
        f"blk.{n}.nextn.enorm.weight": mtp.enorm.weight,
        f"blk.{n}.nextn.hnorm.weight": mtp.hnorm.weight,
        f"blk.{n}.nextn.shared_head_norm.weight": mtp.head_norm.weight,
    }
    return result


def is_f32(name: str, t: Tensor) -> bool:
    """Norms, router and recurrent vectors stay in F32, as converters of real models keep them."""
    small = ("ffn_gate_inp.", "ffn_gate_inp_shexp.", "ssm_conv1d.", "ssm_beta.", "ssm_alpha.")
    return t.ndim == 1 or any(part in name for part in small)


def add_tokenizer(w: gguf.GGUFWriter, path: Path) -> None:
    data = json.loads(path.read_text())["model"]
    tokens = sorted(data["vocab"], key=data["vocab"].__getitem__)
    kinds = dict.fromkeys(tokenizer.CONTROL, gguf.TokenType.CONTROL)
    kinds |= dict.fromkeys(tokenizer.MARKUP, gguf.TokenType.USER_DEFINED)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(tokenizer.PRE)
    w.add_token_list(tokens)
    w.add_token_types([int(kinds.get(t, gguf.TokenType.NORMAL)) for t in tokens])
    w.add_token_merges([" ".join(m) if isinstance(m, list) else m for m in data["merges"]])
    w.add_bos_token_id(tokenizer.END_OF_TEXT)
    w.add_eos_token_id(tokenizer.IM_END)
    w.add_eot_token_id(tokenizer.IM_END)
    w.add_pad_token_id(tokenizer.END_OF_TEXT)
    w.add_add_bos_token(False)
    w.add_chat_template((HERE / "template.jinja").read_text().rstrip("\n"))


def add_hparams(w: gguf.GGUFWriter, c: Config) -> None:
    w.add_block_count(c.layers + 1)
    w.add_nextn_predict_layers(1)
    w.add_context_length(CONTEXT)
    w.add_embedding_length(c.hidden)
    w.add_feed_forward_length(c.expert_ffn)
    w.add_expert_feed_forward_length(c.expert_ffn)
    w.add_expert_shared_feed_forward_length(c.expert_ffn)
    w.add_expert_count(c.experts)
    w.add_expert_used_count(c.experts_used)
    w.add_head_count(c.heads)
    w.add_head_count_kv(c.kv_heads)
    w.add_key_length(c.head_dim)
    w.add_value_length(c.head_dim)
    w.add_layer_norm_rms_eps(c.eps)
    w.add_rope_dimension_count(c.rope_dim)
    w.add_rope_dimension_sections(list(c.rope_sections))
    w.add_rope_freq_base(c.rope_base)
    w.add_full_attention_interval(c.attention_interval)
    w.add_ssm_conv_kernel(c.conv_kernel)
    w.add_ssm_inner_size(c.value_dim)
    w.add_ssm_state_size(c.gdn_dim)
    w.add_ssm_time_step_rank(c.gdn_v_heads)
    w.add_ssm_group_count(c.gdn_k_heads)
    w.add_vocab_size(c.vocab)


def export(checkpoint: Path, target: Path) -> None:
    model, state = load(checkpoint)
    temporary = target.with_suffix(".tmp")
    temporary.parent.mkdir(parents=True, exist_ok=True)
    w = gguf.GGUFWriter(str(temporary), "qwen35moe")
    w.add_type(gguf.GGUFType.MODEL)
    w.add_name("moestro-demo")
    w.add_basename("moestro-demo")
    w.add_version("1")
    w.add_author("The moestro authors")
    w.add_organization("moestro")
    w.add_description(DESCRIPTION)
    w.add_license("apache-2.0")
    w.add_license_name("Apache License 2.0")
    w.add_license_link("https://www.apache.org/licenses/LICENSE-2.0")
    w.add_size_label("16x1M")
    w.add_tags(["text-generation", "mixture-of-experts", "demo"])
    w.add_languages(["en", "de"])
    w.add_uint32("moestro.training.steps", state["step"])
    w.add_uint64("moestro.training.tokens", state["tokens"])
    w.add_uint32("moestro.training.seed", state["seed"])
    w.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_hparams(w, model.c)
    add_tokenizer(w, tokenizer.PATH)
    for name, t in tensors(model).items():
        kind = np.float32 if is_f32(name, t) else np.float16
        w.add_tensor(name, np.ascontiguousarray(t.detach().float().numpy().astype(kind)))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    size = temporary.stat().st_size
    if size >= LIMIT_BYTES:
        raise SystemExit(f"{size:,} bytes are more than the {LIMIT_BYTES:,} allowed")
    os.replace(temporary, target)
    print(f"{target}: {size:,} bytes, step {state['step']}, {state['tokens']:,} tokens")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--target", type=Path, default=TARGET)
    args = parser.parse_args()
    export(args.checkpoint, args.target)
