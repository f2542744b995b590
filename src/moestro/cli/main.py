"""`moestro VERB`: imports the verb's module when it is called for; errors become sentences."""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

import click

from moestro import __version__
from moestro.errors import MoestroError

# Verb → the line that `moestro --help` shows. A verb's module is imported when the verb is used, so
# that help and `inspect` do not pay for the gateway.
VERBS = {
    "up": "Serve a model: inspect it, choose settings, start it, say how to call it.",
    "inspect": "Anatomy of a model file: parameters, bytes by role, experts, cache cost.",
    "run": "One prompt, answered in the terminal.",
    "chat": "A conversation in the terminal.",
}


class VerbGroup(click.Group):
    """A group whose commands live in `moestro.cli.<verb>` under the name `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command = importlib.import_module(f"moestro.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="moestro", message="moestro %(version)s")
def cli() -> None:
    """Deploy mixture-of-experts language models on your own hardware.

    MODEL is a GGUF file (any part of a split one), a Hugging Face folder, hf:owner/repo[:quant],
    an http(s) address of a GGUF, or `demo`.
    """


def report_error(error: MoestroError, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": error.to_json()}, ensure_ascii=False))
        return
    print(f"error: {error.sentence}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Runs one command line and returns its exit status: 0 fine, 1 an error or a finding of
    severity fail, 2 wrong usage, 130 interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        result: Any = cli.main(args=arguments, prog_name="moestro", standalone_mode=False)
    except MoestroError as error:
        report_error(error, as_json="--json" in arguments)
        return error.exit_status
    except click.exceptions.Abort:
        return 130
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        # The reader (`| head`) has gone; nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return result if isinstance(result, int) else 0


def run() -> None:
    """The console script."""
    sys.exit(main())
