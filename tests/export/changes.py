"""Each setting at another value, so that none is forgotten by an exporter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest

from moestro.export.deployment import Deployment
from moestro.export.target import Exported
from moestro.planning import Settings, Wishes
from tests.export.plans import plan, with_settings

OTHER: dict[str, Any] = {
    "context": 4096,
    "parallel": 3,
    "threads": 5,
    "ubatch": 128,
    "cache_type_k": "q8_0",
    "cache_type_v": "q4_0",
    "flash_attention": "on",
    "unified": True,
    "gpu_layers": 7,
    "cpu_expert_layers": 5,
    "tensor_split": (0.25, 0.75),
    "expert_cache_bytes": 300 << 20,
    "cache_on_host": True,
    "mtp_depth": 2,
    "prompt_cache_bytes": 77 << 20,
    "context_checkpoints": 9,
    "engine": "ik_llama.cpp-other",
    "threads_batch": 7,
    "batch": 3000,
    "repack": False,
    "load_mode": "none",
    "mtp_p_min": 0.25,
    "ngram": "map-k",
}
"""None of them is what the plan of `base` has, nor any tool's default."""

EVERY = pytest.mark.parametrize("setting", [field.name for field in fields(Settings)])


def base() -> Deployment:
    """Two GPUs, a model with experts and MTP: every setting has something to say."""
    return Deployment.of(plan("Qwen3.6-35B-A3B", "rtx-4090, rtx-3060", Wishes(mtp=3)))


def changed(setting: str) -> Deployment:
    settings = base().settings
    assert getattr(settings, setting) != OTHER[setting]
    return with_settings(base(), replace(settings, **{setting: OTHER[setting]}))


def forgets(export: Callable[[Deployment], Exported], setting: str) -> bool:
    """Whether another value changes nothing, and is not listed as what the tool has no words for
    either."""
    exported = export(changed(setting))
    listed = {one.setting for one in exported.unexpressed}
    return says(exported) == says(export(base())) and setting not in listed


def says(exported: Exported) -> str:
    """What the files say to the tool; comments say it to people only."""
    lines = (line for file in exported.files for line in file.text.splitlines())
    return "\n".join(line for line in lines if not line.startswith(("#", ";")))
