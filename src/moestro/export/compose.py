"""Docker Compose: llama.cpp's own server image with the plan's flags."""

from __future__ import annotations

import ipaddress
from typing import Any

from moestro.errors import UsageError
from moestro.export.address import url
from moestro.export.allowance import memory_limit_bytes, start_seconds
from moestro.export.container import (
    MODELS,
    PORT,
    READABLE,
    WHICH_IMAGE,
    arguments,
    image,
    not_in_a_container,
    safe_name,
    vendor,
)
from moestro.export.deployment import Deployment
from moestro.export.heading import heading
from moestro.export.model_files import ModelFiles, inside
from moestro.export.target import Exported, File, Target
from moestro.export.yaml_text import yaml_text
from moestro.units import MIB

_NOBODY = "65534:65534"
_LOOPBACK = "127.0.0.1"


def export(deployment: Deployment) -> Exported:
    files = ModelFiles.of(deployment)
    name = safe_name(deployment)
    left = not_in_a_container(deployment)
    text = yaml_text(
        {"name": name, "services": {"llama-server": _service(deployment, files)}},
        comments=(*heading(deployment, left), "", *WHICH_IMAGE, *_comments(deployment)),
    )
    return Exported(
        (File("compose.yaml", text),),
        left,
        (
            *files.steps(),
            READABLE,
            "For a key that clients must give, write LLAMA_API_KEY=KEY into a file .env beside "
            "compose.yaml.",
            "docker compose up --detach --wait",
            f"Clients call it at {url(deployment)}/v1.",
        ),
    )


TARGET = Target("compose", "Docker Compose: llama.cpp's server image", export)


def _comments(deployment: Deployment) -> tuple[str, ...]:
    if vendor(deployment) == "nvidia":
        return ("The host needs NVIDIA's container toolkit and a driver for CUDA 12.8 or newer.",)
    return ()


def _service(deployment: Deployment, files: ModelFiles) -> dict[str, Any]:
    service: dict[str, Any] = {
        "image": image(deployment),
        "command": [_literal(argument) for argument in arguments(deployment)],
        # Empty is none: llama-server takes no notice of an empty key.
        "environment": {"LLAMA_API_KEY": "${LLAMA_API_KEY:-}"},
        "ports": [
            {
                "target": PORT,
                "published": str(deployment.port),
                "host_ip": _address(deployment.host),
                "protocol": "tcp",
            }
        ],
        "volumes": [
            {
                "type": "bind",
                "source": _literal(path),
                "target": _literal(inside(MODELS, path)),
                "read_only": True,
                "bind": {"create_host_path": False},
            }
            for path in files.paths
        ],
        "restart": "unless-stopped",
        "stop_grace_period": "30s",
        "healthcheck": {
            "test": ["CMD", "curl", "--fail", "--silent", f"http://127.0.0.1:{PORT}/health"],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
            "start_period": f"{start_seconds(deployment)}s",
        },
        **_memory(deployment),
        "ulimits": {"memlock": -1, "nofile": 65536},
        "init": True,
        "read_only": True,
        "tmpfs": ["/tmp"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "logging": {"driver": "local", "options": {"max-size": "20m", "max-file": "3"}},
    }
    return service | _devices(deployment)


def _literal(text: str) -> str:
    """`text` without anything that Compose would replace."""
    return text.replace("$", "$$")


def _memory(deployment: Deployment) -> dict[str, Any]:
    limit_bytes = memory_limit_bytes(deployment)
    if limit_bytes is None:
        return {}
    limit = f"{limit_bytes // MIB}m"
    return {"mem_limit": limit, "memswap_limit": limit}  # equal: no swap


def _devices(deployment: Deployment) -> dict[str, Any]:
    maker = vendor(deployment)
    if maker == "nvidia":
        wanted = {"driver": "nvidia", "count": deployment.gpus, "capabilities": ["gpu"]}
        return {
            "user": _NOBODY,
            "deploy": {"resources": {"reservations": {"devices": [wanted]}}},
        }
    if maker == "amd":
        # As root: the devices belong to it, and to groups whose numbers differ between hosts.
        return {"devices": ["/dev/kfd:/dev/kfd", "/dev/dri:/dev/dri"]}
    return {"user": _NOBODY}


def _address(host: str) -> str:
    """Docker publishes on an address.

    Raises:
        UsageError: it is a name.
    """
    if host == "localhost":
        return _LOOPBACK
    try:
        return str(ipaddress.ip_address(host))
    except ValueError as error:
        raise UsageError(
            f"Docker publishes ports on an address, and {host} is a name.",
            hint="Say it as an address, like --host 127.0.0.1 or --host 0.0.0.0.",
        ) from error
