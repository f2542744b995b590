"""The Jinja template in the GGUF and `forge.data.chat` must say the same."""

from __future__ import annotations

import random
from pathlib import Path

from forge.data import chat, tools

import forge

TEMPLATE = Path(forge.__file__).parent / "template.jinja"


def test_the_template_spells_the_words_that_training_used() -> None:
    text = TEMPLATE.read_text()
    for piece in (chat.TOOLS_BEFORE, chat.TOOLS_AFTER):
        assert piece.replace("\n", "\\n") in text


def test_tools_are_rendered_one_a_line() -> None:
    messages, offered = tools.conversation(random.Random(1))
    text = chat.render(messages, offered)
    inside = text.partition("<tools>\n")[2].partition("\n</tools>")[0]
    assert inside.splitlines() == [chat.dumps(tool["function"]) for tool in offered]
