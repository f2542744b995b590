"""A systemd unit for llama-server: closed in, bounded by the plan, started again when it fails.

The unit runs under a user that exists only while it runs, sees of the file system what it needs,
and of the homes nothing but the model's files.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from moestro.engine.llama_server.flags import Flag
from moestro.export.address import is_loopback, url
from moestro.export.allowance import memory_limit_bytes, start_seconds
from moestro.export.container import READABLE, safe_name, unlimited, vendors
from moestro.export.deployment import Deployment
from moestro.export.flags import flags, release, unexpressed
from moestro.export.heading import comment, heading
from moestro.export.location import operand
from moestro.export.model_files import ModelFiles
from moestro.export.target import Exported, File, Target, Unexpressed
from moestro.units import MIB

PROGRAM = "/usr/local/bin/llama-server"
_RESTART_SECONDS = 10
_STARTS = 5
_FIRST_FREE_PORT = 1024

_PLAIN = re.compile(r"[A-Za-z0-9_./=+,@:-]+", re.ASCII)
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./=+,@-]+", re.ASCII)


def export(deployment: Deployment) -> Exported:
    files = ModelFiles.of(deployment)
    unit = f"llama-{safe_name(deployment)}.service"
    left = (*unexpressed(deployment), *unlimited(deployment), *_elsewhere(deployment))
    lines = "\n".join(_lines(deployment, files, unit))
    return Exported(
        (File(unit, f"{comment(heading(deployment, left))}\n{lines}\n"),),
        left,
        (
            *files.steps(),
            _installing(deployment),
            READABLE,
            f"sudo install --mode 644 {unit} /etc/systemd/system/",
            f"sudo systemctl daemon-reload && sudo systemctl enable --now {unit}",
            f"journalctl --unit {unit} --follow",
            f"Clients call it at {url(deployment)}/v1.",
        ),
    )


TARGET = Target("systemd", "systemd: unit for llama-server", export)


def _installing(deployment: Deployment) -> str:
    """The unit sees no homes, so the program has to lie elsewhere, whatever engine it is."""
    if deployment.program is None:
        return f"Install {release(deployment)} as {PROGRAM}, or change ExecStart."
    return f"sudo install {shlex.quote(operand(deployment.program))} {PROGRAM}"


def _elsewhere(deployment: Deployment) -> tuple[Unexpressed, ...]:
    system = deployment.plan.hardware.system
    if system == "Linux":
        return ()
    return (
        Unexpressed(
            "system",
            system,
            "systemd is Linux's: the unit is for a Linux machine that is otherwise as planned.",
        ),
    )


def _lines(deployment: Deployment, files: ModelFiles, unit: str) -> Iterator[str]:
    name = deployment.name.replace("%", "%%")
    arguments = flags(
        deployment,
        family=deployment.engine.family,
        model_path=files.model,
        projector_path=files.projector,
    )
    start = start_seconds(deployment)
    yield "[Unit]"
    yield f"Description=llama-server with {name.rstrip(chr(92))}"
    yield "After=network-online.target"
    yield "Wants=network-online.target"
    if "nvidia" in vendors(deployment):
        yield "# The program has no right to load the module or to make its devices itself."
        yield "After=modprobe@nvidia_uvm.service"
        yield "Wants=modprobe@nvidia_uvm.service"
    for path in files.paths:
        yield f"RequiresMountsFor={_path(path)}"
    yield f"# After {_STARTS} starts that fail it stays down, even if each takes its full time."
    yield f"StartLimitIntervalSec={(_STARTS + 1) * (start + _RESTART_SECONDS)}"
    yield f"StartLimitBurst={_STARTS}"
    yield ""
    yield "[Service]"
    yield "Type=exec"
    if "nvidia" in vendors(deployment):
        yield "ExecStartPre=+-/usr/bin/nvidia-modprobe -c=0 -u"
    yield " \\\n    ".join((f"ExecStart={PROGRAM}", *map(_flag, arguments)))
    yield "# Started means: the model is loaded and answers. A large one takes its time."
    yield f"ExecStartPost=/bin/sh -c {_word(_waiting(deployment))}"
    yield f"TimeoutStartSec={start}"
    yield "TimeoutStopSec=30"
    yield "KillMode=mixed"
    yield "Restart=on-failure"
    yield f"RestartSec={_RESTART_SECONDS}"
    if deployment.engine.family == "ik_llama.cpp":
        yield "# --api-key-file, with a file that this unit can read, asks clients for a key."
    else:
        yield "# LLAMA_API_KEY=… in this file, readable for root alone, asks clients for a key."
        yield f"EnvironmentFile=-/etc/llama-server/{unit.removesuffix('.service')}.env"
    yield ""
    yield from _limits(deployment)
    yield ""
    yield from _walls(deployment, files)
    yield ""
    yield "[Install]"
    yield "WantedBy=multi-user.target"


def _waiting(deployment: Deployment) -> str:
    """A shell's words for coming back when the server is ready, or gone."""
    health = shlex.quote(f"{url(deployment)}/health")
    asking = f"curl --silent --fail --noproxy '*' --output /dev/null {health}"
    return f"until {asking}; do kill -0 $MAINPID || exit 1; sleep 1; done"


def _limits(deployment: Deployment) -> Iterator[str]:
    limit_bytes = memory_limit_bytes(deployment)
    if limit_bytes is not None:
        yield "# The plan's host memory and headroom. More has leaked: better to start again."
        yield f"MemoryMax={limit_bytes // MIB}M"
        yield "MemorySwapMax=0"
    yield "OOMPolicy=kill"
    yield "LimitNOFILE=65536"
    yield "LimitMEMLOCK=infinity"


def _walls(deployment: Deployment, files: ModelFiles) -> Iterator[str]:
    yield "DynamicUser=yes"
    yield "# Of the homes only the model's files are there, read-only, wherever they lie."
    yield "ProtectHome=tmpfs"
    for path in files.paths:
        yield f"BindReadOnlyPaths={_path(path)}"
    yield "ProtectSystem=strict"
    yield "PrivateTmp=yes"
    yield from _devices(deployment)
    yield from _network(deployment)
    low = deployment.port < _FIRST_FREE_PORT
    yield f"CapabilityBoundingSet={'CAP_NET_BIND_SERVICE' if low else ''}"
    if low:
        yield "AmbientCapabilities=CAP_NET_BIND_SERVICE"
    for wall in (
        "LockPersonality",
        "NoNewPrivileges",
        "ProtectClock",
        "ProtectControlGroups",
        "ProtectHostname",
        "ProtectKernelLogs",
        "ProtectKernelModules",
        "ProtectKernelTunables",
        "RestrictNamespaces",
        "RestrictRealtime",
        "RestrictSUIDSGID",
    ):
        yield f"{wall}=yes"
    yield "ProtectProc=invisible"
    yield "SystemCallArchitectures=native"
    yield "SystemCallFilter=@system-service"
    yield "SystemCallErrorNumber=EPERM"
    yield "UMask=0077"


def _devices(deployment: Deployment) -> Iterator[str]:
    makers = vendors(deployment)
    if "nvidia" not in makers and "amd" not in makers:
        yield "PrivateDevices=yes"
        yield "MemoryDenyWriteExecute=yes"
        return
    yield "DevicePolicy=closed"
    if "nvidia" in makers:
        yield "DeviceAllow=char-nvidia* rwm"
    if "amd" in makers:
        yield "DeviceAllow=char-kfd rw"
        yield "DeviceAllow=char-drm rw"
        yield "SupplementaryGroups=render video"


def _network(deployment: Deployment) -> Iterator[str]:
    yield "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX"
    if is_loopback(deployment.host):
        yield "# It serves this machine alone, and has nothing to ask elsewhere."
        yield "IPAddressDeny=any"
        yield "IPAddressAllow=localhost"


def _flag(flag: Flag) -> str:
    return " ".join(_word(part) for part in flag if part is not None)


def _word(argument: str) -> str:
    """One argument of a command line. `%` begins a specifier and `$` a variable, quoted or not."""
    literal = argument.replace("%", "%%").replace("$", "$$")
    return argument if _PLAIN.fullmatch(argument) else _quoted(literal)


def _path(path: str) -> str:
    """A path in a list of paths, where a colon separates and variables do not exist."""
    return path if _PLAIN_PATH.fullmatch(path) else _quoted(path.replace("%", "%%"))


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
