"""What an address to listen on means on this machine."""

from __future__ import annotations

import json
import socket
from http.client import HTTPConnection, HTTPException
from ipaddress import IPv6Address, ip_address
from typing import Any

from moestro import words
from moestro.doctor.case import Address
from moestro.hardware.nvidia import within

_ASK_SECONDS = 0.5
_MOST_BYTES = 1 << 16

CHALLENGE = 'Bearer realm="moestro"'
"""With which the gateway asks for a key."""

SECRET = ""

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


def served_model(place: Place) -> str | None:
    """The model that a moestro serves there already, `SECRET` if it tells only who has a key; None
    if anything else listens, or nothing that answers in half a second. Asks this machine only."""
    ip = ip_address(str(place[1][0]).partition("%")[0])
    if not (only_this_machine(place) or ip.is_unspecified):
        return None
    loopback = "::1" if isinstance(ip, IPv6Address) and ip.ipv4_mapped is None else "127.0.0.1"
    return within(_ASK_SECONDS, lambda: _listed_model(loopback, int(place[1][1])))


def _listed_model(host: str, port: int) -> str | None:
    connection = HTTPConnection(host, port, timeout=_ASK_SECONDS)
    try:
        connection.request("GET", "/v1/models")
        answer = connection.getresponse()
        if answer.status == 401:
            return SECRET if answer.getheader("www-authenticate") == CHALLENGE else None
        listed = json.loads(answer.read(_MOST_BYTES))["data"][0]
        mine = listed["owned_by"] == "moestro"
        return words.shown(str(listed["id"])) if mine else None
    except (OSError, HTTPException, ValueError, LookupError, TypeError, RecursionError):
        return None
    finally:
        connection.close()


def shown(address: Address) -> str:
    host = words.shown(address.host, 80)
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"
