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
    one = streams == 1
    evidence = (
        f"{soft:,} may be open; {base + FOR_EACH_REQUEST * streams:,} are needed for "
        f"{streams} stream{'' if one else 's'}, one request each"
        if clients < streams
        else f"{soft:,} may be open: room for {clients:,} requests at once, of which {streams} "
        f"{'is' if one else 'are'} worked on"
    )
    if soft >= all_waiting:
        yield ok("file-descriptors", "There are enough file descriptors", evidence)
        return
    place = resolved(address)
    local = place is not None and only_this_machine(place)
    severity = Severity.INFO if local else Severity.WARN
    wanted = 65536 if hard is None else min(65536, hard)
    how = _how(wanted if wanted > soft else None, linux=case.host.system == "Linux")
    yield Finding(
        Severity.FAIL if soft < least else severity,
        "too-few-descriptors",
        "There are too few file descriptors for a service"
        if soft < least
        else "There are few file descriptors for a burst of clients",
        evidence,
        f"Raise the limit: {how}.",
    )


def _how(wanted: int | None, *, linux: bool) -> str:
    """`wanted` None: the hard limit allows no more."""
    if wanted is not None:
        unit = ", or LimitNOFILE=65536 in its systemd unit" if linux else ""
        return f"ulimit -n {wanted} where it is started{unit}"
    if linux:
        return (
            "LimitNOFILE=65536 in its systemd unit, or nofile in /etc/security/limits.conf: the "
            "hard limit is as low"
        )
    return "the superuser has to raise the hard limit first, which is as low"


CHECK = Check(
    "file-descriptors",
    "service",
    "Are there enough file descriptors for all who may call at once?",
    run,
    quick=True,
)
