"""Can the service listen where it is to?

Asks the system, with a socket that is closed at once and never listens.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

from moestro.doctor.case import Address, Case
from moestro.doctor.check import Check, ok
from moestro.doctor.host import Host
from moestro.doctor.listening import SECRET, Place, resolved, served_model, shown
from moestro.findings import Finding, Severity

FIRST_FREE_PORT = 1024
_NET_BIND_SERVICE = 10
"""The capability's number."""


def run(case: Case) -> Iterator[Finding]:
    address = case.address
    if address is None:
        return
    place = resolved(address) if 0 <= address.port <= 65535 else None
    if place is None:
        yield _bad(address, "no machine has this address, or no service this port")
        return
    if case.host.system == "Linux" and _reserved(case.host, address.port):
        yield _port_reserved(case.host, address)
        return
    try:
        _bind(place)
    except OSError as error:
        yield _refused(case.host, address, place, error)
        return
    if address.port == 0:
        yield ok("port", "The system will choose a free port", shown(address))
    else:
        yield ok("port", "The port is free", shown(address))


def _bind(place: Place) -> None:
    family, where = place
    with socket.socket(family, socket.SOCK_STREAM) as attempt:
        # As the gateway does: else connections of an earlier run would keep the port for a minute.
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        attempt.bind(where)


def _refused(host: Host, address: Address, place: Place, error: OSError) -> Finding:
    if error.errno == errno.EADDRINUSE:
        model = served_model(place)
        if model is not None:
            return Finding(
                Severity.INFO,
                "already-serving",
                "moestro serves at this address already",
                f"{shown(address)} answers for the model {model}"
                if model != SECRET
                else f"{shown(address)} asks for a key, and tells its model only who has one",
                "Nothing needs to be done if that is the service you mean; give another one its "
                "own port with --port.",
            )
        how = "ss -ltnp" if host.system == "Linux" else f"lsof -nP -iTCP:{address.port}"
        return Finding(
            Severity.FAIL,
            "port-taken",
            "Another program listens on the port",
            shown(address),
            f"Stop it ({how} lists it), or choose another port with --port; 0 takes a free one.",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return _port_reserved(host, address)
    return _bad(address, error.strerror or type(error).__name__)


def _bad(address: Address, why: str) -> Finding:
    return Finding(
        Severity.FAIL,
        "bad-address",
        "The service cannot listen on this address",
        f"{shown(address)}: {why}",
        "Give one of this machine's own (ip address lists them): --host 127.0.0.1 for this "
        "machine only.",
    )


def _port_reserved(host: Host, address: Address) -> Finding:
    first = _first_free(host)
    return Finding(
        Severity.FAIL,
        "port-reserved",
        "The port is reserved for the system",
        f"{shown(address)}; this user may listen from {first} on",
        f"Choose a --port from {first} on and let a proxy listen on the other, or give the service "
        "the right (AmbientCapabilities=CAP_NET_BIND_SERVICE in its systemd unit).",
    )


def _first_free(host: Host) -> int:
    first = host.number("proc/sys/net/ipv4/ip_unprivileged_port_start")
    return FIRST_FREE_PORT if first is None or not 0 <= first <= 65536 else first


def _reserved(host: Host, port: int) -> bool:
    if port == 0 or port >= _first_free(host) or host.superuser:
        return False
    rights = host.table("proc/self/status").get("CapEff", "")
    try:
        return not int(rights or "0", 16) >> _NET_BIND_SERVICE & 1
    except ValueError:
        return False  # the system itself is asked next


CHECK = Check("port", "service", "Can the service listen where it is to?", run)
