"""`moestro chat`: a conversation in the terminal."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import Any

import click

from moestro.cli.endpoint import Endpoint, find, reached
from moestro.cli.loop_thread import LoopThread
from moestro.cli.options import engine_options
from moestro.cli.printer import Printer
from moestro.cli.sampling import Sampling, sampling_options
from moestro.errors import GatewayError

PROMPT = "> "
HELP = "/reset forgets the conversation, /exit or Ctrl-D ends it, Ctrl-C stops an answer."


@click.command(name="chat")
@click.option(
    "--model", metavar="MODEL", help="Model to ask (default: the one that runs, or demo)."
)
@click.option("--url", metavar="URL", help="Endpoint to ask (default: the local one).")
@click.option("--system", metavar="TEXT", help="System prompt.")
@sampling_options
@engine_options
def command(model: str | None, url: str | None, system: str | None, **options: Any) -> int:
    """Talk with a model.

    Uses the endpoint that runs on this machine; where none does, the model is started for as long
    as the conversation lasts.
    """
    sampling = Sampling.taken_from(options)
    found = find(model, url, options)
    with LoopThread() as loop, loop.entered(reached(found)) as place:
        _converse(loop, Conversation(place, system, sampling))
    return 0


class Conversation:
    """What was said so far, and how to ask for more."""

    def __init__(self, place: Endpoint, system: str | None, sampling: Sampling) -> None:
        self._place = place
        self._options = sampling.to_request()
        self._opening = [{"role": "system", "content": system}] if system else []
        self.messages: list[dict[str, str]] = []

    def reset(self) -> None:
        self.messages = []

    async def say(self, text: str, printer: Printer) -> None:
        """One turn. An answer that was stopped stays in the conversation as far as it came; a turn
        that failed leaves no trace in it.

        Raises:
            GatewayError: the endpoint refused or broke off.
        """
        asked = [*self.messages, {"role": "user", "content": text}]
        async with self._place.client.chat(
            [*self._opening, *asked], model=self._place.model, options=self._options
        ) as stream:
            try:
                async for piece in stream:
                    printer.put(piece.reasoning, dim=True)
                    printer.put(piece.text)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None:
                    task.uncancel()
            finally:
                printer.end_line()
        self.messages = [*asked, {"role": "assistant", "content": stream.answer.text}]


def _converse(loop: LoopThread, conversation: Conversation) -> None:
    interactive = sys.stdin.isatty()
    if interactive:
        with suppress(ImportError):  # some builds of Python come without line editing
            import readline  # noqa: F401
        print(HELP, file=sys.stderr)
    printer = Printer(sys.stdout)
    while (line := _read_line(interactive)) is not None:
        match line.strip():
            case "":
                continue
            case "/exit" | "/quit":
                return
            case "/reset":
                conversation.reset()
                print("The conversation starts again.", file=sys.stderr)
            case "/help" | "/?":
                print(HELP, file=sys.stderr)
            case text if text.startswith("/") and " " not in text:
                print(f"There is no {text}. {HELP}", file=sys.stderr)
            case text:
                _take_turn(loop, conversation, text, printer, interactive)


def _read_line(interactive: bool) -> str | None:
    """The next line; None at the end. Ctrl-C on an empty prompt is no reason to leave."""
    while True:
        try:
            return input(PROMPT if interactive else "")
        except EOFError:
            if interactive:
                print(file=sys.stderr)
            return None
        except KeyboardInterrupt:
            if not interactive:
                raise
            print("\n(Ctrl-D or /exit ends the conversation)", file=sys.stderr)
        except UnicodeDecodeError:
            print("error: That line is not text in this terminal's encoding.", file=sys.stderr)


def _take_turn(
    loop: LoopThread, conversation: Conversation, text: str, printer: Printer, interactive: bool
) -> None:
    try:
        loop.run(conversation.say(text, printer))
    except KeyboardInterrupt:
        # Before the first token there was no answer to keep.
        print("(stopped)", file=sys.stderr)
    except GatewayError as error:
        if not interactive:
            raise
        print(f"error: {error.sentence}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
