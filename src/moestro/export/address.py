"""The address that a server listens on, as tools and URLs want it."""

from __future__ import annotations

import ipaddress

from moestro.export.deployment import Deployment


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_port(deployment: Deployment) -> str:
    """Where it listens, as in a URL."""
    return f"{_bracketed(deployment.host)}:{deployment.port}"


def url(deployment: Deployment) -> str:
    """Where this machine itself reaches it."""
    try:
        address = ipaddress.ip_address(deployment.host)
    except ValueError:
        return f"http://{deployment.host}:{deployment.port}"
    host = str(address)
    if address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"
    return f"http://{_bracketed(host)}:{deployment.port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
