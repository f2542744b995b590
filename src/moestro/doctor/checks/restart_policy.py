"""What starts the service again after a crash or a reboot?

moestro restarts nothing by itself: whoever started it has to. A shell in the terminal of a service,
such as an editor on a server, is not that service, though it lives in its control group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from moestro.doctor import cgroup
from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok, unknown
from moestro.doctor.container import in_container, in_pod
from moestro.doctor.host import Host
from moestro.findings import Finding, Severity

RESTARTS = ("always", "on-failure", "on-abnormal")
"""systemd's words for a policy that brings a service back after a crash."""

_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,240}\.(service|scope)", re.ASCII)
_LEVELS = ("etc/systemd", "run/systemd", "run/systemd/transient", "run/systemd/generator",
           "usr/local/lib/systemd", "usr/lib/systemd", "lib/systemd")  # fmt: skip
"""Of two files with one name the first counts."""

_MOST_FILES = 32


def run(case: Case) -> Iterator[Finding]:
    host = case.host
    if case.address is None or host.system != "Linux":
        return
    unit = own_service(host)
    if unit is not None:
        yield _of_service(host, *unit)
    elif in_pod(host):
        yield unknown(
            "restart-policy-unknown",
            "What restarts this pod cannot be seen from inside",
            "this is a container in Kubernetes",
            "kubectl get pod POD -o jsonpath='{.spec.restartPolicy}' tells: Always is right, and "
            "the default.",
        )
    elif in_container(host):
        yield unknown(
            "restart-policy-unknown",
            "What restarts this container cannot be seen from inside",
            "this is a container",
            "docker inspect -f '{{.HostConfig.RestartPolicy.Name}}' CONTAINER tells (podman "
            "likewise): unless-stopped is right.",
        )
    elif cgroup.own_path(host) is None:
        yield unknown(
            "restart-policy-unknown",
            "What would restart the service is not known",
            "the kernel does not say who started this process",
            "/proc/self/cgroup would tell: run this where the service runs.",
        )
    else:
        yield Finding(
            Severity.INFO,
            "started-by-hand",
            "What is started like this is not started again after a crash or a reboot",
            "neither a service of systemd nor a container",
            "To go live, run it in a systemd unit with Restart=on-failure, or in a container that "
            "restarts.",
        )


def own_service(host: Host) -> tuple[str, bool] | None:
    """The unit that runs this process, and whether it is one of a user's own systemd."""
    path = cgroup.own_path(host)
    # systemd gives a service no TERM unless it has a terminal, and a terminal's shell has one.
    if path is None or "INVOCATION_ID" not in host.environment or "TERM" in host.environment:
        return None
    parts = PurePosixPath(path).parts
    units = [part for part in parts if _UNIT.fullmatch(part)]
    if not units or not units[-1].endswith(".service"):
        return None
    return units[-1], any(unit.startswith("user@") for unit in units[:-1])


def _of_service(host: Host, unit: str, of_user: bool) -> Finding:
    policy = restart_of(host, unit, of_user=of_user)
    ask = f"systemctl {'--user ' if of_user else ''}show -p Restart {unit}"
    if policy is None:
        return unknown(
            "restart-policy-unknown",
            "The restart policy of this service could not be read",
            f"{unit} runs this; its unit file is not where such files are",
            f"{ask} tells: on-failure or always is right.",
        )
    if policy in RESTARTS:
        return ok("restart-policy", "systemd restarts the service", f"{unit}: Restart={policy}")
    return Finding(
        Severity.WARN,
        "no-restart-policy",
        "Nothing starts the service again after a crash",
        f"{unit}: Restart={policy}",
        "Write Restart=on-failure under [Service] of its unit (systemctl edit opens it), then "
        "systemctl daemon-reload.",
    )


def restart_of(host: Host, unit: str, *, of_user: bool) -> str | None:
    """What `Restart=` comes to in a unit's file and the files that amend it; `no` where it is not
    given, None where the unit's file cannot be read."""
    kind = "user" if of_user else "system"
    folders = [level if level.endswith(("transient", "generator")) else f"{level}/{kind}"
               for level in _LEVELS]  # fmt: skip
    if of_user and host.environment.get("HOME", "").startswith("/"):
        home = PurePosixPath(host.environment["HOME"].strip("/"))
        if ".." not in home.parts:
            folders.insert(0, str(home / ".config/systemd/user"))
    names = [unit]
    template, at, _ = unit.partition("@")
    if at:
        names.append(f"{template}@.service")
    files = (host.text(f"{folder}/{name}") for name in names for folder in folders)
    text = next((text for text in files if text is not None), None)
    if text is None:
        return None
    amended: dict[str, str] = {}
    for name in reversed(names):
        for folder in reversed(folders):
            for path in host.paths(f"{folder}/{name}.d/*.conf")[:_MOST_FILES]:
                amended[PurePosixPath(path).name] = path
    policy = _restart_in(text) or "no"
    for name in sorted(amended):
        policy = _restart_in(host.text(amended[name]) or "") or policy
    return policy


def _restart_in(text: str) -> str | None:
    """The last `Restart=` of `[Service]`; an empty one takes back what was said before."""
    section, policy = "", None
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("["):
            section = line
        elif section == "[Service]":
            name, equals, value = line.partition("=")
            if equals and name.strip() == "Restart":
                policy = value.strip() or "no"
    return policy if policy is None or re.fullmatch(r"[a-z-]{2,20}", policy) else "no"


CHECK = Check(
    "restart-policy", "service", "What starts the service again after a crash or a reboot?", run
)
