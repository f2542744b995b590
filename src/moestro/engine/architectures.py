"""Names of architectures, as a GGUF's `general.architecture` has them, that engines know.

There is no way to ask a binary for its list. So names that are known here are looked for in it:
one that stands before a zero byte is one that it knows, or a word that it needs for something
else. What it says of a model when it is asked to load it is what counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from mmap import ACCESS_READ, mmap
from pathlib import Path

EMBEDDED = frozenset(
    (
        "llama", "llama4", "deci", "falcon", "grok", "gpt2", "gptj", "gptneox", "mpt",
        "baichuan", "starcoder", "refact", "bert", "modern-bert", "nomic-bert",
        "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert", "bloom",
        "stablelm", "qwen", "qwen2", "qwen2moe", "qwen2vl", "qwen3", "qwen3moe", "qwen3next",
        "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "clef", "qwen4exp", "phi2", "phi3",
        "phimoe", "plamo", "plamo2", "plamo3", "codeshell", "orion", "internlm2", "minicpm",
        "minicpm3", "gemma", "gemma2", "gemma3", "gemma3n", "gemma4", "gemma4-assistant",
        "gemma-embedding", "gemma-embedding2", "starcoder2", "mamba", "mamba2", "maple",
        "jamba", "falcon-h1", "xverse", "command-r", "cohere2", "cohere2moe", "dbrx", "olmo",
        "olmo2", "olmoe", "muse-glimmer", "openelm", "arctic", "deepseek", "deepseek2",
        "deepseek2-ocr", "deepseek32", "deepseek4", "chatglm", "glm4", "glm4moe", "glm-dsa",
        "bitnet", "t5", "t5encoder", "jais", "jais2", "nemotron", "nemotron_h",
        "nemotron_h_moe", "exaone", "exaone4", "exaone-moe", "rwkv6", "rwkv6qwen2", "rwkv7",
        "arwkv7", "granite", "granitemoe", "granitehybrid", "graniteswitch", "granite_swa",
        "chameleon", "wavtokenizer-dec", "plm", "bailingmoe", "bailingmoe2", "bailingmoe3",
        "dots1", "dots3note", "arcee", "afmoe", "laguna", "ernie4_5", "ernie4_5-moe",
        "hunyuan-moe", "hunyuan-dense", "hunyuan_vl", "hy_v3", "hy_v4", "smollm3", "gpt-oss",
        "lfm2", "lfm2moe", "dream", "smallthinker", "llada", "llada-moe", "seed_oss",
        "grovemoe", "apertus", "minimax-01", "hrm_text", "minimax-m2", "minimax-m3", "cogvlm",
        "rnd1", "pangu-embedded", "mistral3", "eagle3", "dflash", "mistral4", "paddleocr",
        "mimo2", "step35", "spark2_5", "llama-embed", "maincoder", "kimi-linear", "kimi-k3",
        "glm5-next", "talkie", "mellum", "nanbeige", "qwen3tts", "pockettts", "k2-horizon",
    )
)  # fmt: skip
"""`LLM_ARCH_NAMES` of the pinned release (src/llama-arch.cpp), projectors left out."""

KNOWN = EMBEDDED | {"bitnet-25", "bitnet-b1.58"}
"""With those of ik_llama.cpp that have names of their own."""


_WORD = re.compile(rb"[a-z0-9_.-]{2,32}\0")


def found_in(files: Iterable[Path]) -> frozenset[str]:
    """Those of `KNOWN` that stand in one of the binaries `files`; one that cannot be read has
    none."""
    found: set[str] = set()
    for path in files:
        try:
            with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
                words = {match[0][:-1].decode() for match in _WORD.finditer(data)}
        except (OSError, ValueError):  # empty files cannot be mapped
            continue
        # Linkers keep a text that ends like another one as a part of it.
        found |= {word[start:] for word in words for start in range(len(word))} & KNOWN
    return frozenset(found)
