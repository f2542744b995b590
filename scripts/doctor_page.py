"""Writes docs/reference/doctor.md: all checks, what was broken on purpose, the field's checklist.

python -m scripts.doctor_page
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.doctor.checklist import ADVICE, GROUPS
from tests.doctor.running import Outcome, run_all
from tests.doctor.setups_list import SETUPS

from moestro.doctor.checks import CHECKS

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "doctor.md"
INTRODUCTION = """\
# The doctor's checks

What `moestro doctor` asks ([guide](../guides/doctor.md)), what was broken on purpose to see that it
finds it, and what became of the checklist that goes round in the field. Written by
`python -m scripts.doctor_page`, from the same lists that the tests run; a test holds the page to
them.
"""


def render(outcomes: dict[str, Outcome]) -> str:
    """`outcomes` is what the checks found in each set-up, by its name."""
    return "\n".join([INTRODUCTION, _checks(), _setups(outcomes), _checklist()])


def _checks() -> str:
    quick = sum(check.quick for check in CHECKS)
    lines = [
        "## Checks",
        "",
        f"{len(CHECKS)} in all. Those marked *quick* ({quick}) cost next to nothing: `up`, `run` "
        f"and "
        "`chat` ask them too, show what is wrong, and refuse to start on a *fail*.",
        "",
        "| check | area | question | quick |",
        "|---|---|---|---|",
    ]
    for check in CHECKS:
        mark = "quick" if check.quick else ""
        lines.append(f"| {check.name} | {check.area} | {check.question} | {mark} |")
    return "\n".join([*lines, ""])


def _setups(outcomes: dict[str, Outcome]) -> str:
    lines = [
        "## Broken on purpose",
        "",
        f"{len(SETUPS)} set-ups, each a healthy workstation and a clean model with one thing "
        f"broken. "
        "All were found, each by the finding below; the healthy one has none of them. "
        "Findings that followed from the same cause stand in brackets.",
        "",
        "| what was broken | severity | finding | check | also |",
        "|---|---|---|---|---|",
    ]
    for setup in SETUPS:
        found = outcomes[setup.name].found
        check = next((name for name, finding in found if finding.code == setup.code), "**missed**")
        also = sorted(
            {f.code for _, f in found if f.code != setup.code and f.severity in ("warn", "fail")}
        )
        beside = f"({', '.join(also)})" if also else ""
        lines.append(f"| {setup.broken} | {setup.severity} | {setup.code} | {check} | {beside} |")
    return "\n".join([*lines, ""])


def _checklist() -> str:
    lines = [
        "## The field's checklist",
        "",
        "Two articles that are passed round name failure modes of mixture-of-experts models and "
        "list "
        "what to see to before a deployment. Each line, the check that answers it, and what is "
        "true of it.",
    ]
    for group in GROUPS:
        lines += ["", f"### {group}", "", "| advice | checks | what is true |", "|---|---|---|"]
        for advice in ADVICE:
            if advice.group == group:
                checks = ", ".join(advice.checks) or "–"
                lines.append(f"| {advice.advice} | {checks} | {advice.truth} |")
    return "\n".join([*lines, ""])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        PAGE.write_text(render(run_all(Path(folder))), encoding="utf-8")


if __name__ == "__main__":
    main()
