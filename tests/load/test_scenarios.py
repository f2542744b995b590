"""The built-in scenarios: the same again for the same seed, and nothing shared between seeds."""

from __future__ import annotations

import ast
import json
from itertools import islice

import pytest

from moestro.errors import UsageError
from moestro.load import SCENARIOS, Scenario, Session, random_scenario, scenario_named
from moestro.load.scenario_sets.prose import Writer, cut

ALL = list(SCENARIOS.values())


def some_sessions(scenario: Scenario, seed: int, count: int = 6, ratio: float = 4.0):
    return list(islice(scenario.sessions(seed, ratio), count))


def text_of(session: Session) -> str:
    return json.dumps([[dict(one) for one in turn.messages] for turn in session.turns])


def said_first(session: Session) -> str:
    return str(session.turns[0].messages[-1]["content"])


def length(turn) -> int:
    return sum(len(message["content"]) for message in turn.messages)


def test_their_names() -> None:
    assert list(SCENARIOS) == [
        "chat", "users", "long-prompt", "code-edit", "agent", "json-tools", "random",
    ]  # fmt: skip
    assert all(scenario_named(name).name == name for name in SCENARIOS)
    with pytest.raises(UsageError) as caught:
        scenario_named("cat")
    assert "long-prompt" in (caught.value.hint or "")


@pytest.mark.parametrize("scenario", ALL, ids=lambda one: one.name)
def test_a_seed_says_the_same_again_and_no_other_does(scenario: Scenario) -> None:
    again = [[text_of(one) for one in some_sessions(scenario, 5)] for _ in range(2)]
    assert again[0] == again[1]
    assert len(set(again[0])) == 6
    other = [text_of(one) for one in some_sessions(scenario, 6)]
    assert not set(again[0]) & set(other)


@pytest.mark.parametrize("scenario", ALL, ids=lambda one: one.name)
def test_prompts_share_no_beginning(scenario: Scenario) -> None:
    """A cached prefix would make the second of them look fast. The instruction of code-edit is the
    same in front of every file, so files are compared there."""
    sessions = [one for seed in range(8) for one in some_sessions(scenario, seed, 4)]
    texts = [said_first(one) for one in sessions]
    if scenario.name == "code-edit":
        texts = [text.split("```python\n")[1] for text in texts]
    assert len({text[:24] for text in texts}) == len(texts)


@pytest.mark.parametrize("scenario", ALL, ids=lambda one: one.name)
@pytest.mark.parametrize("ratio", [2.5, 4.0, 6.0])
def test_lengths_are_what_they_say(scenario: Scenario, ratio: float) -> None:
    turns = [turn for one in some_sessions(scenario, 1, 40, ratio) for turn in one.turns]
    mean = sum(map(length, turns)) / len(turns) / ratio
    assert mean == pytest.approx(scenario.prompt_tokens, rel=0.15)
    assert {turn.max_tokens for turn in turns} == {scenario.output_tokens}


def test_random_words_of_any_length() -> None:
    scenario = random_scenario(100, 7)
    (session,) = some_sessions(scenario, 0, 1)
    assert length(session.turns[0]) == pytest.approx(400, abs=12)
    assert session.turns[0].max_tokens == 7
    (tiny,) = some_sessions(random_scenario(1, 1), 0, 1, 1.0)
    assert said_first(tiny)


def test_an_agent_reads_everything_again() -> None:
    sessions = some_sessions(SCENARIOS["agent"], 3)
    system = {one.turns[0].messages[0]["content"] for one in sessions}
    assert len(system) == 1
    assert not system & {one.turns[0].messages[0]["content"]
                         for one in some_sessions(SCENARIOS["agent"], 4)}  # fmt: skip
    for session in sessions:
        assert 4 <= len(session.turns) <= 6
        for before, after in zip(session.turns, session.turns[1:], strict=False):
            assert after.messages[: len(before.messages)] == before.messages
            assert [one["role"] for one in after.messages[len(before.messages) :]] == [
                "assistant", "user",
            ]  # fmt: skip


def test_code_to_edit_is_code_that_holds_the_name() -> None:
    for session in some_sessions(SCENARIOS["code-edit"], 2, 20):
        text = said_first(session)
        name = text.split("`")[1]
        source = text.split("```python\n")[1].removesuffix("```")
        defined = {node.name for node in ast.walk(ast.parse(source))
                   if isinstance(node, ast.FunctionDef)}  # fmt: skip
        assert name in defined


def test_json_and_tools_take_turns() -> None:
    kinds = [sorted(one.turns[0].options) for one in some_sessions(SCENARIOS["json-tools"], 0, 4)]
    assert kinds == [["response_format"], ["tool_choice", "tools"]] * 2


@pytest.mark.parametrize(
    ("text", "characters", "left"),
    [("one two", 100, "one two"), ("one two", 5, "one"), ("one two", 7, "one two"),
     ("one two", 3, "one"), ("one two", 0, "one"), ("one", -4, "one")],
)  # fmt: skip
def test_text_is_cut_between_words(text: str, characters: float, left: str) -> None:
    assert cut(text, characters) == left


def test_a_writer_never_writes_nothing() -> None:
    writer = Writer("x")
    assert writer.text(-5)
    assert writer.words(0)
