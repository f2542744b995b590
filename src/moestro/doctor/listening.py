"""What an address to listen on means on this machine."""

from __future__ import annotations

import socket
from ipaddress import IPv6Address, ip_address
from typing import Any

from moestro.doctor.case import Address

Place = tuple[socket.AddressFamily, Any]
"""Family and address of a socket."""


def resolved(address: Address) -> Place | None:
    """As the gateway resolves it before it listens; None if no machine can have such a name."""
    try:
        family, _, _, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, ValueError):  # UnicodeError is a ValueError
        return None
    return family, place


def only_this_machine(place: Place) -> bool:
    """Nobody else can reach it."""
    ip = ip_address(str(place[1][0]).partition("%")[0])
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped.is_loopback
    return ip.is_loopback


def shown(address: Address) -> str:
    host = address.host if len(address.host) <= 80 else address.host[:79] + "…"
    host = host if host.isprintable() else repr(host)
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"
