"""The comment at the top of an exported file: whence it came, and what it does not say."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from moestro.export.address import is_loopback
from moestro.export.deployment import Deployment
from moestro.export.flags import RELEASE, host_expert_blocks, release
from moestro.export.target import Unexpressed
from moestro.hardware import Inventory
from moestro.planning.settings import Family
from moestro.units import format_bytes

_WIDTH = 96


def heading(
    deployment: Deployment, left: Sequence[Unexpressed] = (), notes: Sequence[str] = ()
) -> tuple[str, ...]:
    """Lines without a comment sign; `notes` are a target's own. No line has a line break in it,
    whatever the plan holds: a name from a plan file must not become a command."""
    plan, model = deployment.plan, deployment.plan.model
    what = f"{deployment.name} ({model.architecture}, {model.quantization or 'unknown types'})"
    lines = [
        f"Made by moestro from its plan for {what}",
        f"on {_machine(plan.hardware)}.",
    ]
    if plan.fits is not True:
        lines.append("The plan does not fit that machine, or nobody knows whether it does.")
    lines += [f"The plan says that it fails: {finding.title}." for finding in plan.findings]
    lines += [*_why_that_many(deployment), *notes]
    if left:
        lines += ["", "Not said here, because there are no words for it:"]
        lines += [f"- {entry.setting} ({entry.planned}): {entry.instead}" for entry in left]
    return tuple(part for line in lines for part in _wrapped(_one_line(line)))


def server_notes(deployment: Deployment, family: Family = "llama.cpp") -> tuple[str, ...]:
    """What to know of any llama-server of that family with these flags."""
    whose = f"llama.cpp {RELEASE}"
    if family == deployment.engine.family:
        whose = release(deployment)
    who = "Every program here" if is_loopback(deployment.host) else "Whoever reaches it"
    if family == "ik_llama.cpp":
        key, pages = "--api-key-file names a file with a key", "Web pages of all hosts can, too."
    else:
        key = "its environment has a LLAMA_API_KEY"
        pages = (
            "Web pages of other hosts than localhost cannot read its answers: --cors-origins lets "
            "them."
        )
    return (
        f"For {whose}; older releases do not know every flag.",
        f"{who} may use it, unless {key}. {pages}",
    )


def comment(lines: Sequence[str], sign: str = "#") -> str:
    """The lines as comments, each ended by a line break."""
    return "".join(f"{sign} {line}".rstrip() + "\n" for line in lines)


def _why_that_many(deployment: Deployment) -> list[str]:
    blocks = host_expert_blocks(deployment)
    if not blocks or blocks[-1] + 1 == len(blocks):
        return []
    return [
        f"The experts of {len(blocks)} blocks stay in main memory: the last of them is block "
        f"{blocks[-1]}, and blocks",
        "without experts are counted too.",
    ]


def _machine(inventory: Inventory) -> str:
    gpus = " and ".join(gpu.name or "a GPU" for gpu in inventory.gpus)
    size_bytes = inventory.memory.total_bytes
    memory = f"{format_bytes(size_bytes)} of memory" if size_bytes else "unknown memory"
    cores = inventory.cpu.physical_cores
    return ", ".join(part for part in (gpus, f"{cores} cores" if cores else "", memory) if part)


def _one_line(text: str) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _wrapped(line: str) -> list[str]:
    """Whatever is long goes on below, set in as an item of a list is."""
    wrapped = textwrap.wrap(
        line,
        _WIDTH,
        subsequent_indent="  " if line.startswith("- ") else "",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return wrapped or [""]
