"""Writes docs/reference/cli.md from the commands themselves. A test holds the page to it.

python scripts/cli_reference.py
"""

from __future__ import annotations

from pathlib import Path

import click

from moestro.cli.main import VERBS, cli

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "cli.md"
INTRODUCTION = """\
# Command line

Every verb prints for people on stdout and progress on stderr; `--json` prints one JSON object on
stdout and nothing else there. Exit status: 0 fine, 1 an error or a finding of severity *fail*,
2 wrong usage, 130 interrupted; `up` ends with 0 when Ctrl-C stops a service that runs.

This page is written by `python scripts/cli_reference.py`.
"""


def help_text(name: str | None) -> str:
    root = click.Context(
        cli, info_name="moestro", terminal_width=80, max_content_width=80, **cli.context_settings
    )
    if name is None:
        return cli.get_help(root)
    command = cli.get_command(root, name)
    assert command is not None
    context = click.Context(
        command, info_name=name, parent=root, terminal_width=80, max_content_width=80
    )
    return command.get_help(context)


def render() -> str:
    sections = [INTRODUCTION, f"```\n{help_text(None)}\n```\n"]
    sections += [f"## {verb}\n\n```\n{help_text(verb)}\n```\n" for verb in VERBS]
    return "\n".join(sections)


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(render(), encoding="utf-8")
