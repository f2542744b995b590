"""Are there enough file descriptors for all who may call at once?

The gateway holds two for each request: its client's and its engine's. A client that waits keeps
them. When there are none left, nobody is let in, not even to ask for the service's health.
"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.doctor.listening import only_this_machine, resolved
from moestro.findings import Finding, Severity

FOR_EACH_REQUEST = 2
BASE = 64
"""The gateway with its loop, log and libraries (20 measured), the engine's pipes, some spare."""

LEAST = 256
"""Some ninety clients: fewer come in one burst from a single agent framework's pool."""

LEAST_QUEUE = 2048
"""Clients that the gateway's socket lets wait; with them it holds 4,096 descriptors and a few."""

USUAL = 1024
"""What Linux gives a login: enough for some 480 clients, so for those of this machine."""


def run(case: Case) -> Iterator[Finding]:
    address = case.address
    if address is None or "nofile" not in case.host.limits:
        return
    soft, hard = case.host.limits["nofile"]
    streams = case.plan.settings.parallel if case.plan is not None else 1
    files = len(case.plan.model.files) if case.plan is not None else 1
    base = BASE + files
    least = max(LEAST, base + FOR_EACH_REQUEST * streams)
    all_waiting = base + FOR_EACH_REQUEST * (LEAST_QUEUE + streams)
    if soft is None:
        yield ok("file-descriptors", "There are enough file descriptors", "no limit")
        return
    clients = max((soft - base) // FOR_EACH_REQUEST, 0)
    evidence = (
        f"{soft:,} may be open: room for {clients:,} requests at once, of which {streams} are "
        f"worked on"
    )
    if soft >= all_waiting:
        yield ok("file-descriptors", "There are enough file descriptors", evidence)
        return
    place = resolved(address)
    local = place is not None and only_this_machine(place)
    severity = Severity.INFO if local and soft >= USUAL else Severity.WARN
    wanted = 65536 if hard is None else min(65536, hard)
    how = (
        f"ulimit -n {wanted} where it is started, or LimitNOFILE=65536 in its systemd unit"
        if wanted > soft
        else "LimitNOFILE=65536 in its systemd unit, or nofile in /etc/security/limits.conf: the "
        "hard limit is as low"
    )
    yield Finding(
        Severity.FAIL if soft < least else severity,
        "too-few-descriptors",
        "There are too few file descriptors for a service"
        if soft < least
        else "There are few file descriptors for a burst of clients",
        evidence,
        f"Raise the limit: {how}.",
    )


CHECK = Check(
    "file-descriptors",
    "service",
    "Are there enough file descriptors for all who may call at once?",
    run,
    quick=True,
)
