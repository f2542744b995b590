"""Writes what docs/guides/export.md shows of the program: two exports, and what no target can say.

python -m scripts.export_page
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

from tests.export.changes import base, changed
from tests.export.plans import GOLDEN, deployment, plan

from moestro.cli.show_export import show_advice, show_files
from moestro.export.deployment import Deployment
from moestro.export.target import Target
from moestro.export.targets import TARGETS
from moestro.planning import Settings

PAGE = Path(__file__).parents[1] / "docs" / "guides" / "export.md"
SHOWN = ("vllm", "compose")
PART = re.compile(
    r"(<!-- written by scripts/export_page\.py: (\S+) -->\n).*?(<!-- end -->\n)", re.S
)


def written(page: str) -> str:
    """`page` with its parts as the program has them now."""
    parts = {name: _shown(target) for target in TARGETS if (name := target.name) in SHOWN}
    parts |= {"targets": _targets(), "unexpressed": _unexpressed()}
    return PART.sub(lambda match: f"{match[1]}\n{parts[match[2]]}\n{match[3]}", page)


def _shown(target: Target) -> str:
    exported = target.export(deployment("one-gpu"))
    out = io.StringIO()
    show_files(exported.files, out)
    show_advice(target, exported, [], out, 80)
    command = f"$ moestro export plan.json --to {target.name}"
    return "\n".join(["```", command, *out.getvalue().splitlines(), "```", ""])


def _targets() -> str:
    lines = ["| `--to` | what is written | files |", "|---|---|---|"]
    for target in TARGETS:
        files = ", ".join(f"`{file.name}`" for file in target.export(deployment("one-gpu")).files)
        lines.append(f"| `{target.name}` | {target.title} | {files} |")
    return "\n".join([*lines, ""])


def _cases() -> Iterator[Deployment]:
    """Every setting at a value of its own, every golden plan, and what else a target may lack."""
    yield base()
    yield from (changed(field.name) for field in fields(Settings))
    yield from map(deployment, GOLDEN)
    yield Deployment.of(plan("demo", "m4-max"))
    named = replace(base(), name="one,two")
    yield named
    yield replace(base(), plan=replace(base().plan, fits=None))
    model = replace(base().plan.model, projector="/srv/models/mmproj.gguf")
    yield replace(base(), plan=replace(base().plan, model=model))
    odd = replace(base().settings, expert_cache_bytes=(300 << 20) + 1)
    yield replace(base(), plan=replace(base().plan, settings=odd))


def _unexpressed() -> str:
    lines = ["| target | of the plan | for example | instead |", "|---|---|---|---|"]
    cases = list(_cases())
    for target in TARGETS:
        seen: dict[str, tuple[str, str]] = {}
        for case in cases:
            for left in target.export(case).unexpressed:
                seen.setdefault(left.setting, (left.planned, left.instead))
        if not seen:
            lines.append(f"| `{target.name}` | – | | all of it is said |")
        lines += [
            f"| `{target.name}` | {setting} | {_cell(planned)} | {_cell(instead)} |"
            for setting, (planned, instead) in seen.items()
        ]
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
