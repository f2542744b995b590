"""Every target. A new one is a file with a `TARGET` here, and its name in the list below."""

from __future__ import annotations

from moestro.export import (
    compose,
    kubernetes,
    llama_server,
    llama_server_ini,
    llama_swap,
    lm_studio,
    ollama,
    systemd,
    vllm,
)
from moestro.export.target import Target

TARGETS: tuple[Target, ...] = (
    llama_server.TARGET,
    llama_server_ini.TARGET,
    llama_swap.TARGET,
    ollama.TARGET,
    lm_studio.TARGET,
    vllm.TARGET,
    compose.TARGET,
    systemd.TARGET,
    kubernetes.TARGET,
)
