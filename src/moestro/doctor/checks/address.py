"""Can anybody use the service who reaches it?"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.doctor.container import in_container, in_pod
from moestro.doctor.listening import only_this_machine, resolved, shown
from moestro.findings import Finding, Severity

_ANY_PORT = 8642
"""For an example where the system chooses."""


def run(case: Case) -> Iterator[Finding]:
    address = case.address
    if address is None:
        return
    place = resolved(address)
    if place is None:
        return  # the port's check says that no machine can have this name
    if only_this_machine(place):
        yield ok("address", "Only this machine reaches the service", shown(address))
    elif address.keys:
        yield ok("address", "Other machines reach the service, with a key", shown(address))
    elif address.meant_open:
        yield Finding(
            Severity.WARN,
            "open-without-key",
            "Anyone who reaches this address can use the model, as asked",
            f"{shown(address)} is open to other machines, and --no-keys asks for no key",
            "Let a proxy that asks for a key and speaks TLS stand in front.",
        )
    elif in_pod(case.host) or in_container(case.host):
        port = address.port or _ANY_PORT
        yield Finding(
            Severity.WARN,
            "open-without-key",
            "Who may use the model is up to what this container is published to",
            f"{shown(address)} inside a container, where no other address can be reached from "
            "outside, and no key is asked for",
            "Make a key (moestro keys create), or let a NetworkPolicy say which pods may reach it."
            if in_pod(case.host)
            else "Make a key (moestro keys create), or publish it on the host's own loopback "
            f"(docker run -p 127.0.0.1:{port}:{port}).",
        )
    else:
        yield Finding(
            Severity.FAIL,
            "open-without-key",
            "Anyone who reaches this address can use the model",
            f"{shown(address)} is open to other machines, and no key is asked for",
            "Make a key (moestro keys create) and let a proxy that speaks TLS stand in front, or "
            "listen on this machine only (--host 127.0.0.1).",
        )


CHECK = Check("address", "service", "Can anybody use the service who reaches it?", run)
