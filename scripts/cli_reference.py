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


def help_text(*names: str) -> str:
    """What `moestro NAMES --help` prints."""
    root = click.Context(
        cli, info_name="moestro", terminal_width=80, max_content_width=80, **cli.context_settings
    )
    command: click.Command = cli
    context = root
    for name in names:
        assert isinstance(command, click.Group)
        found = command.get_command(context, name)
        assert found is not None
        context = click.Context(
            found, info_name=name, parent=context, terminal_width=80, max_content_width=80
        )
        command = found
    return command.get_help(context)


def sections(verb: str) -> list[str]:
    """A verb's, and those of the commands inside it."""
    found = cli.get_command(click.Context(cli), verb)
    inner = list(found.commands) if isinstance(found, click.Group) else []
    return [
        f"## {verb}\n\n```\n{help_text(verb)}\n```\n",
        *(f"### {verb} {name}\n\n```\n{help_text(verb, name)}\n```\n" for name in inner),
    ]


def render() -> str:
    parts = [INTRODUCTION, f"```\n{help_text()}\n```\n"]
    for verb in VERBS:
        parts += sections(verb)
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(render(), encoding="utf-8")
