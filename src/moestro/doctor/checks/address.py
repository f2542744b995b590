"""Can anybody use the service who reaches it?"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.doctor.listening import only_this_machine, resolved, shown
from moestro.findings import Finding, Severity


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
    else:
        yield Finding(
            Severity.FAIL,
            "open-without-key",
            "Anyone who reaches this address can use the model",
            f"{shown(address)} is open to other machines, and no key is asked for",
            "Listen on this machine only (--host 127.0.0.1), and let a proxy that asks for a key "
            "and speaks TLS stand in front.",
        )


CHECK = Check("address", "service", "Can anybody use the service who reaches it?", run, quick=True)
