"""vLLM: the plan's workload in the words of `vllm serve`.

vLLM is another engine: what carries over is what is served (context, streams, drafts) and within
which bounds. Where a plan of llama.cpp says how, vLLM has its own way, and `unexpressed` names it.
Options as of vLLM 0.32 (`bench/export/consumers.py` asks its parser).
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from moestro.export.address import url
from moestro.export.deployment import Deployment
from moestro.export.flags import alias
from moestro.export.heading import comment, heading
from moestro.export.location import file_name, is_address, is_safetensors, operand
from moestro.export.model_files import MODELS_FOLDER
from moestro.export.target import Exported, File, Target, Unexpressed
from moestro.planning.settings import EMBEDDED, CacheType, Settings
from moestro.units import GIB, format_bytes

FILE = "vllm-serve.sh"

_SAME_SIZE: frozenset[CacheType] = frozenset(("f16", "bf16"))
"""vLLM keeps the cache in the model's own type, which has 16 bits too."""
_QUANTIZED_CACHE = "fp8"
_LEAST_STEP = 2048
"""Tokens: vLLM's own default. Below the block of a hybrid's cache, which may hold over a thousand
tokens, it could schedule no step."""
_MOST_UTILIZATION = 0.95
_NGRAM_DRAFTS = 8
"""Tokens that vLLM may draft from the text at once: each is room that every step has to leave."""
_OWN_BYTES = 2 * GIB
"""Assumed: what vLLM takes of a GPU for activations and captured graphs beyond the plan."""
_NO_OPTION_LEAST_BYTES = GIB // 100
_SPLITS_HEADS = (1, 2, 4, 8)
"""Numbers of GPUs that the attention heads of nearly every model can be divided among."""

Option = tuple[str, str | None]


def export(deployment: Deployment) -> Exported:
    left = tuple(_unexpressed(deployment))
    lines = [f"exec vllm serve {shlex.quote(operand(_model(deployment)))}"]
    lines += [_words(option) for option in _options(deployment)]
    text = f"#!/bin/sh\n{comment((*heading(deployment, left), '', *_ABOUT))}\n"
    text += " \\\n  ".join(lines) + "\n"
    return Exported((File(FILE, text),), left, tuple(_use(deployment)))


TARGET = Target("vllm", "vLLM: command line", export)

_ABOUT = (
    "Options as of vLLM 0.32. The plan's memory was computed for llama.cpp and for its file: of",
    "another format of the model vLLM takes other amounts, within the bounds below.",
)


def _words(option: Option) -> str:
    name, value = option
    if value is None:
        return name
    # A value that looks like an option is one, unless it hangs on its name.
    joint = "=" if value.startswith("-") else " "
    return f"{name}{joint}{shlex.quote(value)}"


def _model(deployment: Deployment) -> str:
    """A Hugging Face folder by its path; a GGUF by its own."""
    path = deployment.model_path
    if is_address(path):
        if is_safetensors(path):
            return MODELS_FOLDER
        return f"{MODELS_FOLDER}/{file_name(path)}"
    return str(PurePosixPath(path).parent) if is_safetensors(path) else path


def _options(deployment: Deployment) -> Iterator[Option]:
    settings = deployment.settings
    yield "--served-model-name", alias(deployment)
    yield "--host", deployment.host
    yield "--port", str(deployment.port)
    yield "--max-model-len", str(settings.context)
    yield "--max-num-seqs", str(settings.parallel)
    yield "--max-num-batched-tokens", str(_step(settings))
    if _is_quantized(settings):
        yield "--kv-cache-dtype", _QUANTIZED_CACHE
    yield from _placement(deployment)
    drafts: dict[str, Any] | None = None
    if settings.mtp_depth:
        drafts = {"method": "mtp", "num_speculative_tokens": settings.mtp_depth}
    elif settings.ngram != "off":
        drafts = {"method": "ngram", "num_speculative_tokens": _NGRAM_DRAFTS}
    if drafts is not None:
        yield "--speculative-config", json.dumps(drafts)


def _step(settings: Settings) -> int:
    """Tokens of one step, with room for one of every stream and its drafts."""
    return max(settings.ubatch, _LEAST_STEP, settings.outputs)


def _is_quantized(settings: Settings) -> bool:
    return settings.cache_type_k not in (*_SAME_SIZE, "f32")


def _placement(deployment: Deployment) -> Iterator[Option]:
    gpus = deployment.gpus
    if not gpus:
        cache_bytes = deployment.memory["CPU"].cache_bytes
        if cache_bytes:
            yield "--kv-cache-memory-bytes", str(cache_bytes)
        return
    if gpus > 1:
        name = "--tensor-parallel-size" if gpus in _SPLITS_HEADS else "--pipeline-parallel-size"
        yield name, str(gpus)
        if deployment.plan.model.expert_blocks and gpus in _SPLITS_HEADS:
            yield "--enable-expert-parallel", None
    utilization = _utilization(deployment)
    if utilization is not None:
        yield "--gpu-memory-utilization", f"{utilization:.2f}"
    offloaded = _offloaded_gib(deployment)
    if offloaded:
        yield "--cpu-offload-gb", f"{offloaded:.2f}"


def _utilization(deployment: Deployment) -> float | None:
    """The planned share of a card, of the fullest if there are several: vLLM takes the same of
    each. None where the size of a card or the plan's own memory is not known."""
    shares = []
    for number, gpu in enumerate(deployment.plan.hardware.gpus):
        if not gpu.memory_bytes or deployment.plan.fits is None:
            return None
        shares.append(
            (deployment.memory[f"GPU{number}"].total_bytes + _OWN_BYTES) / gpu.memory_bytes
        )
    return min(math.ceil(max(shares) * 100) / 100, _MOST_UTILIZATION)


def _offloaded_gib(deployment: Deployment) -> float:
    """Weights in host memory for each GPU, in GiB; 0 where the model is on the GPUs. llama.cpp
    keeps the embedding table on the host even then, which vLLM does not."""
    if not _on_host(deployment):
        return 0.0
    weights_bytes = deployment.memory["CPU"].weights_bytes
    return math.ceil(weights_bytes / deployment.gpus / _NO_OPTION_LEAST_BYTES) / 100


def _on_host(deployment: Deployment) -> bool:
    settings = deployment.settings
    layers = settings.gpu_layers
    everything = layers is None or layers > deployment.plan.model.block_count
    return deployment.gpus > 0 and (settings.cpu_expert_layers > 0 or not everything)


def _unexpressed(deployment: Deployment) -> Iterator[Unexpressed]:
    yield from _about_the_model(deployment)
    yield from _about_the_cache(deployment)
    yield from _about_the_placement(deployment)
    settings = deployment.settings
    if _step(settings) != settings.ubatch:
        yield Unexpressed(
            "ubatch",
            str(settings.ubatch),
            f"A step of vLLM holds {_step(settings):,} tokens: its default, and the least that "
            "suits models with recurrent layers.",
        )
    yield Unexpressed(
        "threads",
        str(settings.threads),
        "vLLM takes its threads from the environment: OMP_NUM_THREADS, and on CPUs "
        "VLLM_CPU_OMP_THREADS_BIND.",
    )
    if settings.threads_batch not in (None, settings.threads):
        yield Unexpressed(
            "threads_batch",
            str(settings.threads_batch),
            "vLLM reads prompts and writes answers on the same threads.",
        )
    yield from _about_the_engine(deployment)
    if settings.flash_attention != "auto":
        yield Unexpressed(
            "flash_attention",
            settings.flash_attention,
            "vLLM chooses its attention kernels itself; --attention-backend names one.",
        )


def _about_the_engine(deployment: Deployment) -> Iterator[Unexpressed]:
    settings = deployment.settings
    if deployment.engine.id != EMBEDDED:
        yield Unexpressed("engine", deployment.engine.id, "vLLM is an engine of its own.")
    if settings.batch is not None:
        yield Unexpressed(
            "batch", f"{settings.batch:,}", f"A step of vLLM holds {_step(settings):,} tokens."
        )
    if not settings.repack:
        yield Unexpressed("repack", "off", "vLLM lays weights out in its own way.")
    if settings.load_mode != "auto":
        how = "vLLM reads the weights into memory of its own; --load-format chooses a reader."
        yield Unexpressed("load_mode", settings.load_mode, how)
    if settings.ngram != "off":
        how = (
            "MTP drafts alone: vLLM has one way to draft at a time."
            if settings.mtp_depth
            else "vLLM has one kind of drafts from the text, here of "
            f"{_NGRAM_DRAFTS} tokens at most."
        )
        yield Unexpressed("ngram", settings.ngram, how)
    if settings.mtp_depth and settings.mtp_p_min:
        how = "vLLM drafts to the full depth, whatever the probability."
        yield Unexpressed("mtp_p_min", f"{settings.mtp_p_min:g}", how)


def _about_the_model(deployment: Deployment) -> Iterator[Unexpressed]:
    planned = deployment.plan.model
    if alias(deployment) != deployment.name:
        yield Unexpressed(
            "name",
            deployment.name,
            f"Clients call it {alias(deployment)}, as they would with llama-server, which reads a "
            "comma as the end of a name.",
        )
    if not is_safetensors(deployment.model_path):
        yield Unexpressed(
            "model",
            planned.quantization or "GGUF",
            "vLLM reads Hugging Face folders. GGUF needs vllm-gguf-plugin, which is experimental "
            "and knows few mixtures of experts: rather give the folder of the original model, or "
            "of an FP8 or AWQ version of about the same size.",
        )
    if planned.projector is not None:
        yield Unexpressed(
            "projector",
            planned.projector,
            "A Hugging Face folder holds its own; the file beside a GGUF is not read.",
        )


def _about_the_cache(deployment: Deployment) -> Iterator[Unexpressed]:
    settings = deployment.settings
    kinds = (settings.cache_type_k, settings.cache_type_v)
    if not _SAME_SIZE.issuperset(kinds):
        kept = _QUANTIZED_CACHE if _is_quantized(settings) else "the model's own 16-bit type"
        yield Unexpressed(
            "cache_type",
            " and ".join(dict.fromkeys(kinds)),
            f"Keys and values are both kept in {kept}, the nearest that every build of vLLM has.",
        )
    if not settings.unified and settings.parallel > 1:
        yield Unexpressed(
            "unified",
            "an equal part of the cache for each stream",
            "All streams share vLLM's pages; when they run out, one waits and is read again.",
        )
    if settings.prompt_cache_bytes:
        yield Unexpressed(
            "prompt_cache_bytes",
            f"{format_bytes(settings.prompt_cache_bytes)} of host memory",
            "vLLM keeps prefixes in free pages of the cache itself; --kv-offloading-size adds "
            "host memory.",
        )
    if settings.context_checkpoints:
        yield Unexpressed(
            "context_checkpoints",
            str(settings.context_checkpoints),
            "vLLM keeps states of recurrent layers in the cache's own pages, as many as fit.",
        )
    if settings.cache_on_host:
        yield Unexpressed(
            "cache_on_host", "yes", "The cache is on the GPUs: plan with more room there."
        )


def _about_the_placement(deployment: Deployment) -> Iterator[Unexpressed]:
    settings = deployment.settings
    gpus = deployment.plan.hardware.gpus
    if _on_host(deployment):
        weights_bytes = deployment.memory["CPU"].weights_bytes
        yield Unexpressed(
            "cpu_expert_layers" if settings.cpu_expert_layers else "gpu_layers",
            f"{format_bytes(weights_bytes)} of weights computed on the host",
            "vLLM copies offloaded weights to the GPU for each step, over the link, and chooses "
            "them by size and not by expert: expect to be slower than planned.",
        )
    if settings.expert_cache_bytes:
        yield Unexpressed(
            "expert_cache_bytes",
            format_bytes(settings.expert_cache_bytes),
            "vLLM has no cache for experts.",
        )
    split = settings.tensor_split
    if len(gpus) > 1 and (split or len({gpu.name for gpu in gpus}) > 1):
        yield Unexpressed(
            "tensor_split",
            " : ".join(f"{share:g}" for share in split) if split else "by free memory",
            "vLLM gives each GPU the same: the smallest one bounds all.",
        )
    if any(gpu.vendor == "apple" for gpu in gpus):
        yield Unexpressed(
            "gpu_layers", "on the GPU", "vLLM itself has no Metal: on a Mac it runs on the CPU."
        )
    if gpus and _utilization(deployment) is None:
        yield Unexpressed(
            "memory",
            "not known in full",
            "vLLM takes 92 % of each GPU, its default: bound it by --gpu-memory-utilization.",
        )


def _use(deployment: Deployment) -> Iterator[str]:
    planned = deployment.plan.model
    for address in filter(is_address, planned.files):
        yield f"Download into {MODELS_FOLDER}: {address}"
    if not is_safetensors(deployment.model_path):
        yield f"Put the model's Hugging Face folder in the place of the GGUF in {FILE}."
    yield f"sh {FILE}"
    yield f"Clients call it at {url(deployment)}/v1."
    yield "Or, for a key that clients must give:"
    yield f"env VLLM_API_KEY=KEY sh {FILE}"
