"""LM Studio's defaults for one model, the file that its window writes for "My Models".

The keys are those of `globalConfigSchematics` in `@lmstudio/sdk` 2.0.0. LM Studio has no fields for
some of the plan, and only a share for what is a number of layers: those also go as llama-server's
own flags into `argumentsOverride`, which its llama-server runtimes append to theirs, so that the
last one wins.
"""

from __future__ import annotations

import json
import shlex
from typing import Any

from moestro.export.deployment import Deployment
from moestro.export.flags import flags, host_expert_blocks, own_engine
from moestro.export.location import file_name, is_address, operand
from moestro.export.target import Exported, File, Target, Unexpressed
from moestro.gateway.defaults import DEFAULT_HOST
from moestro.units import MIB, format_bytes

FOLDER = "~/.lmstudio/.internal/user-concrete-model-default-config"

CACHE_TYPES = frozenset(("f32", "f16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"))
MOST_SESSIONS = 1023

_OVERRIDES = frozenset(
    (
        "--gpu-layers",
        "--device",
        "--fit",
        "--split-mode",
        "--tensor-split",
        "--n-cpu-moe",
        "--moe-cache-mib",
        "--flash-attn",
        "--threads",
        "--threads-batch",
        "--cache-ram",
        "--cache-idle-slots",
        "--no-cache-idle-slots",
        "--repack",
        "--no-repack",
        "--load-mode",
        "--spec-type",
        "--spec-draft-p-min",
    )
)
"""Flags that no field says, or not exactly."""

_OVERRIDDEN = (
    ("threads_batch", None, "have one number of threads"),
    ("repack", True, "do as their runtime likes"),
    ("load_mode", "auto", "map the file"),
    ("ngram", "off", "draft with MTP or not at all"),
    ("mtp_p_min", 0.0, "have a bound of their own"),
)
"""Settings that only a flag says, with their usual value and what happens elsewhere."""

_SERVERS_PROMPT_CACHE_BYTES = 8192 * MIB
_RUNTIME = "only LM Studio's llama-server runtimes read it, from argumentsOverride; "


def export(deployment: Deployment) -> Exported:
    name = f"{file_name(deployment.model_path)}.json"
    threads = ("llm.prediction.llama.cpuThreads", deployment.settings.threads)
    content = {
        "preset": "",
        "operation": {"fields": _fields([threads])},
        "load": {"fields": _fields(_load(deployment))},
    }
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    return Exported(
        files=(File(name, text),),
        unexpressed=_unexpressed(deployment),
        use=(
            f"lms import {shlex.quote(operand(deployment.model_path))}",
            f"Put {name} into {FOLDER}/PUBLISHER/REPOSITORY/, the two folders that `lms ls` shows "
            "for the model, while LM Studio is closed.",
            f"lms server start --port {deployment.port}",
            f"lms load --identifier={shlex.quote(deployment.name)}",
        ),
    )


def _fields(pairs: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value} for key, value in pairs]


def _load(deployment: Deployment) -> list[tuple[str, Any]]:
    settings = deployment.settings
    batch = settings.tokens_at_once(accelerated=deployment.gpus > 0)
    # A shared cache is as long as a context; without sharing, each stream gets one of its own.
    context = settings.context * (settings.parallel if settings.unified else 1)
    found: list[tuple[str, Any]] = [
        ("llm.load.contextLength", context),
        ("llm.load.numParallelSessions", min(settings.parallel, MOST_SESSIONS)),
        ("llm.load.useUnifiedKvCache", settings.unified),
        ("llm.load.offloadKVCacheToGpu", not settings.cache_on_host),
        ("llm.load.numCpuExpertLayersRatio", _expert_share(deployment)),
        ("llm.load.llama.autoFit", False),
        ("llm.load.llama.acceleration.offloadRatio", _gpu_share(deployment)),
        ("llm.load.llama.cpuThreadPoolSize", settings.threads),
        ("llm.load.llama.evalBatchSize", batch),
        ("llm.load.llama.physicalBatchSize", settings.ubatch),
        ("llm.load.llama.flashAttention", settings.flash_attention != "off"),
        ("llm.load.llama.contextCheckpoints", settings.context_checkpoints),
        ("llm.load.llama.kCacheQuantizationType", _cache_type(settings.cache_type_k)),
        ("llm.load.llama.vCacheQuantizationType", _cache_type(settings.cache_type_v)),
        ("llm.load.llama.speculativeDecoding.draftMtp", settings.mtp_depth > 0),
    ]
    if settings.mtp_depth:
        depth = ("llm.load.llama.speculativeDecoding.draftMaxTokens", settings.mtp_depth)
        found.append(depth)
    if deployment.gpus > 1 and settings.tensor_split is not None:
        split = {
            "strategy": "custom",
            "disabledGpus": [],
            "priority": [],
            "customRatio": list(settings.tensor_split),
        }
        found.append(("load.gpuSplitConfig", split))
    found.append(("llm.load.llama.argumentsOverride", _override(deployment)))
    return found


def _cache_type(name: str) -> dict[str, Any]:
    known = name in CACHE_TYPES
    return {"checked": known and name != "f16", "value": name if known else "f16"}


def _override(deployment: Deployment) -> dict[str, Any]:
    settings = deployment.settings
    wanted = set(_OVERRIDES)
    wanted |= {"--cache-type-k"} if settings.cache_type_k not in CACHE_TYPES else set()
    wanted |= {"--cache-type-v"} if settings.cache_type_v not in CACHE_TYPES else set()
    wanted |= {"--parallel"} if settings.parallel > MOST_SESSIONS else set()
    return {
        "enabled": True,
        "disabledParameters": [],
        "overrideParameters": [
            {"key": name, "value": value or ""}
            for name, value in flags(deployment)
            if name in wanted
        ],
        "excludeAllConfig": False,
    }


def _gpu_share(deployment: Deployment) -> float | str:
    every = deployment.plan.model.block_count + 1
    layers = deployment.settings.gpu_layers
    return _share(0 if not deployment.gpus else every if layers is None else layers, every)


def _expert_share(deployment: Deployment) -> float | str:
    blocks = host_expert_blocks(deployment)
    return _share(blocks[-1] + 1 if blocks else 0, deployment.plan.model.block_count)


def _share(part: int, whole: int) -> float | str:
    if part <= 0:
        return "off"
    return "max" if part >= whole else round(part / whole, 6)


def _unexpressed(deployment: Deployment) -> tuple[Unexpressed, ...]:
    settings, model = deployment.settings, deployment.plan.model
    found: list[Unexpressed] = [*own_engine(deployment, "LM Studio")]

    def left(setting: str, planned: str, instead: str) -> None:
        found.append(Unexpressed(setting, planned, instead))

    if is_address(deployment.model_path):
        left("model", deployment.model_path, "LM Studio reads its own folder: download it first.")
    if model.projector is not None:
        left("projector", model.projector, "LM Studio takes the one that lies beside the model.")
    if isinstance(_gpu_share(deployment), float):
        left(
            "gpu_layers",
            str(settings.gpu_layers),
            f"{_RUNTIME}the others take a share of the layers and round it their own way.",
        )
    if host_expert_blocks(deployment):
        left(
            "cpu_expert_layers",
            str(settings.cpu_expert_layers),
            f"{_RUNTIME}the others take a share of the layers and round it their own way.",
        )
    if settings.flash_attention == "auto":
        left("flash_attention", "auto", f"{_RUNTIME}the others switch it on.")
    if settings.prompt_cache_bytes != _SERVERS_PROMPT_CACHE_BYTES:
        left(
            "prompt_cache_bytes",
            format_bytes(settings.prompt_cache_bytes),
            f"{_RUNTIME}without it llama-server's own bound holds, "
            f"{format_bytes(_SERVERS_PROMPT_CACHE_BYTES)}.",
        )
    if deployment.gpus and settings.expert_cache_bytes:
        left(
            "expert_cache_bytes",
            format_bytes(settings.expert_cache_bytes),
            f"{_RUNTIME}without it there is none, and experts in main memory are computed there.",
        )
    for setting, usual, others in _OVERRIDDEN:
        if (value := getattr(settings, setting)) not in (None, usual):
            left(setting, str(value), f"{_RUNTIME}the others {others}.")
    for setting in ("cache_type_k", "cache_type_v"):
        if (name := getattr(settings, setting)) not in CACHE_TYPES:
            left(setting, name, f"{_RUNTIME}the others take f16.")
    if settings.parallel > MOST_SESSIONS:
        left("parallel", str(settings.parallel), f"{_RUNTIME}the others take {MOST_SESSIONS}.")
    if deployment.host != DEFAULT_HOST:
        left("host", deployment.host, "LM Studio's window decides who may reach its server.")
    return tuple(found)


TARGET = Target("lm-studio", "LM Studio: defaults for the model", export)
