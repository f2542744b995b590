"""May the service start all its threads?

The kernel counts threads as processes: against a limit of the user (`ulimit -u`) and against one of
the container (`pids.max`). The engine's HTTP server keeps a thread for each request it answers.
"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor import cgroup
from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.doctor.checks.cpu_quota import MOST_THREADS
from moestro.findings import Finding, Severity

BASE = 16
"""The gateway (5 measured), the engine's own loops and loaders (about 8), helpers of a start."""

WAITING = 128
"""Requests beyond the engine's fixed threads, each of which takes one more while it waits."""


def run(case: Case) -> Iterator[Finding]:
    if case.address is None or case.plan is None:
        return
    settings = case.plan.settings
    if settings.threads > MOST_THREADS:
        return  # no engine starts so many, whatever the limits: the check of the quota says it
    # `server_http_context::init` of llama-server: its streams and four, or one for each processor.
    http = max(settings.parallel + 4, case.inventory.cpu.usable_cores - 1)
    need = BASE + settings.threads + http
    soft = None if case.host.superuser else case.host.limits.get("nproc", (None, None))[0]
    bound = cgroup.task_bound(case.host)
    rooms = []
    if soft is not None:
        rooms.append((soft, f"{soft:,} for all of this user's processes", _OF_USER))
    if bound is not None:
        used = "" if bound.used is None else f", {bound.used:,} of them taken"
        rooms.append((bound.room, f"{bound.limit:,} in this control group{used}", _OF_CONTAINER))
    if not rooms:
        if "nproc" in case.host.limits:
            yield ok("processes", "No limit of threads is in the way", f"{need} are needed")
        return
    room, which, fix = min(rooms)
    evidence = f"{need} threads are needed, {WAITING} more when many wait; {which}"
    if room >= need + WAITING:
        yield ok("processes", "The service may start all its threads", evidence)
        return
    yield Finding(
        Severity.FAIL if room < need else Severity.WARN,
        "too-few-processes",
        "The engine could not start its threads" if room < need
        else "There are few threads for many requests at once",
        evidence,
        fix,
    )  # fmt: skip


_OF_USER = (
    "Raise the limit: ulimit -u 4096 where it is started, or LimitNPROC=4096 in its systemd unit."
)
_OF_CONTAINER = (
    "Raise the limit: docker run --pids-limit, Compose pids_limit, systemd TasksMax=, or the "
    "kubelet's podPidsLimit."
)

CHECK = Check("processes", "service", "May the service start all its threads?", run, quick=True)
