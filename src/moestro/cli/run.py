"""`moestro run PROMPT`: one prompt, answered on stdout."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from moestro.cli.endpoint import Endpoint, Running, find, reached
from moestro.cli.options import engine_options, json_option
from moestro.cli.printer import Printer
from moestro.cli.sampling import Sampling, sampling_options
from moestro.client.endpoint import AnswerStream
from moestro.errors import UsageError

if TYPE_CHECKING:
    from moestro.cli.launch import Prepared

INTERRUPTED = 130


@click.command(name="run")
@click.argument("prompt")
@click.option(
    "--model", metavar="MODEL", help="Model to ask (default: the one that runs, or demo)."
)
@click.option("--url", metavar="URL", help="Endpoint to ask (default: the local one).")
@click.option("--system", metavar="TEXT", help="System prompt.")
@sampling_options
@engine_options
@json_option
def command(
    prompt: str,
    model: str | None,
    url: str | None,
    system: str | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Answer one PROMPT; `-` reads it from standard input.

    Asks the endpoint that runs on this machine; where none does, the model is started for this one
    call. Only the answer goes to standard output.
    """
    text, sampling = _read_prompt(prompt), Sampling.taken_from(options)
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    return asyncio.run(_run(find(model, url, options), messages, sampling, as_json))


def _read_prompt(prompt: str) -> str:
    if prompt != "-":
        return prompt
    try:
        text = sys.stdin.read()
    except UnicodeDecodeError as error:
        raise UsageError("The prompt on standard input is not text.") from error
    if not text.strip():
        raise UsageError("There was no prompt on standard input.")
    return text


async def _run(
    target: Running | Prepared,
    messages: list[dict[str, str]],
    sampling: Sampling,
    as_json: bool,
) -> int:
    async with reached(target) as place:
        return await _ask(place, messages, sampling, as_json)


async def _ask(
    place: Endpoint, messages: list[dict[str, str]], sampling: Sampling, as_json: bool
) -> int:
    printer = Printer(sys.stdout)
    thoughts = Printer(sys.stderr)
    interrupted = False
    async with place.client.chat(
        messages, model=place.model, options=sampling.to_request()
    ) as stream:
        try:
            async for piece in stream:
                if not as_json:
                    thoughts.put(piece.reasoning if sys.stderr.isatty() else "", dim=True)
                    printer.put(piece.text)
        except asyncio.CancelledError:
            # Ctrl-C. Leaving the stream's context is what ends the generation.
            interrupted = True
            _forget_cancellation()
        finally:
            thoughts.end_line()
            if not as_json:
                printer.end_line()
    if as_json:
        print(json.dumps(_summary(stream, place.client.url, interrupted), ensure_ascii=False))
    return INTERRUPTED if interrupted else 0


def _forget_cancellation() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()


def _summary(stream: AnswerStream, url: str, interrupted: bool) -> dict[str, Any]:
    summary = stream.answer.to_json()
    if interrupted:
        summary["finish_reason"] = "interrupted"
    return {**summary, "url": url}
