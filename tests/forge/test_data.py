"""The generators of the demo model's training text: deterministic, correct, fair."""

from __future__ import annotations

import itertools
import json
import random
import re

import pytest
from forge.data import DOMAINS, SHARES, arithmetic, chat, documents, stories, tools

GENERATED = [name for name in DOMAINS if name != "scripture"]  # scripture needs a fetched package
EQUATION = re.compile(r"(?<!\d)(\d+) ([+-]) (\d+) = (-?\d+)")


def some(domain: str, count: int, seed: int = 3) -> list[str]:
    return list(itertools.islice(documents(domain, "train", seed), count))


def test_shares_cover_every_domain_and_add_up() -> None:
    assert set(SHARES) == set(DOMAINS)
    assert sum(SHARES.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("domain", GENERATED)
def test_the_same_seed_gives_the_same_documents(domain: str) -> None:
    assert some(domain, 20) == some(domain, 20)
    assert some(domain, 20) != some(domain, 20, seed=4)


@pytest.mark.parametrize("domain", GENERATED)
def test_held_out_documents_are_other_documents(domain: str) -> None:
    held_out = list(itertools.islice(documents(domain, "held-out", 3), 5))
    assert held_out != some(domain, 5)


@pytest.mark.parametrize("domain", GENERATED)
def test_chat_markup_is_balanced(domain: str) -> None:
    for text in some(domain, 200):
        assert text.strip()
        assert text.count("<|im_start|>") == text.count("<|im_end|>")
        assert text.count("<tool_call>") == text.count("</tool_call>")


def test_every_equation_is_right() -> None:
    seen = 0
    for text in some("arithmetic", 2000):
        for a, op, b, said in EQUATION.findall(text):
            assert arithmetic.result(op, int(a), int(b)) == int(said)
            seen += 1
    assert seen > 2000


def test_no_held_out_pair_is_in_any_training_text() -> None:
    asked = re.compile(r"(?<!\d)(\d+) ?([+-]) ?(\d+)(?!\d)")
    for domain in GENERATED:
        for text in some(domain, 1000):
            for a, op, b in asked.findall(text):
                if int(a) < 100 and int(b) < 100:
                    assert not arithmetic.held_out(op, int(a), int(b)), text


def test_the_held_out_share_is_as_promised_and_symmetric_for_addition() -> None:
    pairs = [(a, b) for a in range(100) for b in range(100)]
    for op in "+-":
        share = sum(arithmetic.held_out(op, a, b) for a, b in pairs) / len(pairs)
        assert 0.03 < share < 0.07
    assert all(arithmetic.held_out("+", a, b) == arithmetic.held_out("+", b, a) for a, b in pairs)


def test_tool_calls_name_a_tool_and_fit_its_schema() -> None:
    kinds = {"string": str, "integer": int, "number": int}
    rng = random.Random(7)
    for _ in range(500):
        messages, offered = tools.conversation(rng)
        schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in offered}
        request = ""
        for message in messages:
            if message["role"] == "user":
                request = message["content"]
            for call in message.get("tool_calls", ()):
                name, arguments = call["function"]["name"], call["function"]["arguments"]
                schema = schemas[name]
                assert set(arguments) == set(schema["required"]) == set(schema["properties"])
                for key, value in arguments.items():
                    assert isinstance(value, kinds[schema["properties"][key]["type"]])
                    assert str(value) in request


def test_rendered_tool_calls_parse_as_json() -> None:
    calls = 0
    for text in some("tools", 300):
        prompt, _, talk = text.partition("</tools>")
        for line in prompt.partition("<tools>\n")[2].strip().splitlines():
            assert {"name", "description", "parameters"} == set(json.loads(line))
        for body in re.findall(r"<tool_call>\n(\{\"name\": \"[^<].*)\n</tool_call>", talk):
            assert set(json.loads(body)) == {"name", "arguments"}
            calls += 1
    assert calls > 250


def test_a_conversation_renders_as_chatml() -> None:
    text = chat.render(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
         {"role": "assistant", "content": "Hello!"}]
    )  # fmt: skip
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n"
    )


def test_a_story_has_a_beginning_a_middle_and_an_end() -> None:
    rng = random.Random(11)
    seen = set()
    for _ in range(300):
        paragraphs = stories.story(rng).split("\n\n")
        assert len(paragraphs) == 4
        assert paragraphs[-1].endswith(stories.MORALS)
        seen.add("\n\n".join(paragraphs))
    assert len(seen) > 295


def test_a_story_is_about_what_was_asked() -> None:
    asked = re.compile(r"(?:about|write) an? (\w+)[.?,]", re.I)
    for text in some("stories", 400):
        found = asked.search(text.partition("<|im_end|>")[0])
        if found and found[1] in stories.ANIMALS:
            assert found[1] in text.partition("assistant")[2]
