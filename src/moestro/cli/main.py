"""`moestro VERB`: imports the verb's module when it is called for; errors become sentences."""

from __future__ import annotations

import errno
import importlib
import io
import json
import os
import shutil
import sys
import textwrap
from typing import Any

import click

from moestro import __version__
from moestro.errors import MoestroError, UsageError

INTERRUPTED = 130

# Verb → the line that `moestro --help` shows. A verb's module is imported when the verb is used, so
# that help and `inspect` do not pay for the gateway.
VERBS = {
    "up": "Serve a model: inspect it, choose settings, start it, say how to call it.",
    "serve": "The supervised service, for a terminal nobody looks at.",
    "status": "The services that run here, and how they are.",
    "stop": "End a service, letting its answers finish.",
    "keys": "API keys: who may use the endpoints of this machine.",
    "models": "Models that were downloaded: list them, remove them.",
    "logs": "What a service and its engines wrote.",
    "plan": "Memory, speed and settings of a model on this machine or on another one.",
    "inspect": "Anatomy of a model file: parameters, bytes by role, experts, cache cost.",
    "hardware": "What this machine is, and how fast; or one that is not here.",
    "verify": "Is this file as good as its reference, and do its experts still route?",
    "doctor": "The checklist before going live: machine, model, plan and service.",
    "engines": "Engines on this machine: list them, build native ones, remove them.",
    "tune": "Measure which settings win on this machine for a workload, and keep them.",
    "bench": "Load on an endpoint: time to first token, tokens/s, percentiles, goodput.",
    "export": "The plan's settings for another tool: llama-server, Ollama, vLLM, Compose, …",
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
    for line in getattr(error, "log_tail", ()):
        print(f"  {line}", file=sys.stderr)
    for name, text in (("error", error.sentence), ("hint", error.hint)):
        if text:
            print(_wrapped(f"{name}: {text}"), file=sys.stderr)


def _wrapped(line: str) -> str:
    """As wide as the terminal is; for a file or a pipe as it is."""
    if not sys.stderr.isatty():
        return line
    width = shutil.get_terminal_size().columns
    return textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False,
                         break_on_hyphens=False)  # fmt: skip


def tame_streams() -> None:
    """Closed standard streams become empty ones, and what an encoding lacks a question mark, so
    that no verb has to think of either."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def main(arguments: list[str] | None = None) -> int:
    """Runs one command line and returns its exit status: 0 fine, 1 an error or a finding of
    severity fail, 2 wrong usage, 130 interrupted."""
    tame_streams()
    arguments = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in arguments
    try:
        result: Any = cli.main(args=arguments, prog_name="moestro", standalone_mode=False)
        sys.stdout.flush()
    except MoestroError as error:
        report_error(error, as_json=as_json)
        return error.exit_status
    except (click.exceptions.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        if as_json:
            report_error(UsageError(error.format_message()), as_json=True)
        else:
            error.show()
        return error.exit_code
    except OSError as error:
        return _output_failed(error)
    return result if isinstance(result, int) else 0


def _output_failed(error: OSError) -> int:
    """Standard output that cannot be written to. Anything else is a fault of ours, and is shown."""
    if error.errno not in (errno.EPIPE, errno.ENOSPC):
        raise error
    # Python flushes at exit and would stumble over the same stream again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno == errno.ENOSPC:
        print("error: The output could not be written: the disk is full.", file=sys.stderr)
        return 1
    return 0  # the reader (`| head`) has what it wanted


def run() -> None:
    """The console script."""
    sys.exit(main())
