"""Templates of every honest kind are rendered; whatever reaches outside is found, run or not."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import pytest
from jinja2 import Template
from jinja2.sandbox import SandboxedEnvironment

from moestro.demo import model_path
from moestro.doctor.template import child
from moestro.doctor.template import examine as examining
from moestro.doctor.template.conversations import ANSWER, MAIN, QUESTION, TRIALS, lost_from
from moestro.doctor.template.examine import Limits, examine_template
from moestro.doctor.template.reaching import Syntax, look_at_syntax
from moestro.doctor.template.report import TemplateReport
from moestro.doctor.template.sandbox import TemplateEnvironment
from moestro.doctor.template.stopper import Stopper
from moestro.errors import MoestroError
from moestro.model import read_model
from tests.tiny_models import CHATML

BRACKETS = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %}{{ m.content }}{{ eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)
TOOLS_UNGUARDED = "{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}" + CHATML
NEEDS_THOUGHT = (
    "{% for m in messages %}{% if m.role == 'assistant' and not m.reasoning_content %}"
    "{{ raise_exception('no thought') }}{% endif %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
DROPS_THOUGHTS = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.reasoning_content and loop.last %}"
    "<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
APPENDS = "{% set seen = [] %}{% for m in messages %}{% set _ = seen.append(m.role) %}{% endfor %}"
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
TRAINING = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% if loop.index > 50 %}{% break %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}:{% endif %}"
)
TEXT_ARGUMENTS = (
    "{{ tools | tojson if tools }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
    "{% for c in m.tool_calls %}{{ c.function.name + c.function.arguments }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tried(template: str, trial: str = "plain") -> tuple[str, str]:
    """As the child does it, in this process: only for templates that do no harm."""
    environment = TemplateEnvironment()
    compiled = child._compiled(environment, template)
    if not isinstance(compiled, Template):
        return compiled
    variables = next(t for t in TRIALS if t.name == trial).variables()
    tokens = {"bos_token": "", "eos_token": ""}
    return child._rendered(environment, compiled, {**tokens, **variables}, 1 << 18)


def outcomes(report: TemplateReport) -> dict[str, str]:
    return {r.conversation: r.outcome for r in report.renderings}


def all_rendered(report: TemplateReport) -> bool:
    return set(outcomes(report).values()) == {"rendered"}


def test_the_demo_model_has_a_template_without_fault() -> None:
    template = read_model(model_path()).chat_template
    assert template is not None
    report = examine_template(template, eos="<|im_end|>")
    assert all_rendered(report)
    assert [r.lost for r in report.renderings] == [()] * 4
    assert (report.opens_answer, report.keeps_prefix, report.changes_data) == (True, True, False)
    assert report.after_answer == "<|im_end|>\n<|im_start|>user\n"
    assert {"<|im_start|>", "<|im_end|>"} <= set(report.marks)


def test_brackets_open_an_answer_without_being_asked() -> None:
    report = examine_template(BRACKETS, bos="<s>", eos="</s>")
    assert report.opens_answer
    assert outcomes(report)["system"] == "refused"
    assert report.of("system").message == "only user and assistant"  # type: ignore[union-attr]
    assert report.after_answer == "</s>[INST] "
    turns = report.of("turns")
    assert turns is not None
    assert turns.text.startswith(f"<s>[INST] {QUESTION} [/INST]{ANSWER}</s>")


def test_marks_for_training_and_loops_that_break_are_rendered() -> None:
    assert tried(TRAINING, "turns")[0] == "rendered"


def test_a_template_may_count_on_tools() -> None:
    assert tried(TOOLS_UNGUARDED)[0] == "broken"
    assert tried(TOOLS_UNGUARDED, "plain-bare")[0] == "rendered"
    assert all_rendered(examine_template(TOOLS_UNGUARDED))


def test_a_thought_is_given_to_a_template_that_wants_one() -> None:
    assert outcomes(examine_template(NEEDS_THOUGHT))["turns"] == "rendered"


def test_arguments_as_text_are_tried_too() -> None:
    report = examine_template(TEXT_ARGUMENTS)
    tools = report.of("tools")
    assert tools is not None
    assert (tools.outcome, tools.lost) == ("rendered", ())


def test_a_dropped_thought_is_a_changed_history() -> None:
    assert examine_template(DROPS_THOUGHTS).keeps_prefix is False


def test_changed_lists_are_told() -> None:
    report = examine_template(APPENDS + CHATML)
    assert report.changes_data
    assert all_rendered(report)


def syntax_of(template: str) -> Syntax:
    environment = TemplateEnvironment()
    return look_at_syntax(environment.parse(template + CHATML), environment)


NEVER = "{% if messages | length > 50 %}"
REACHING = [
    # Names put together of what is set once, and of what only a run could tell.
    NEVER + "{% set c = '_' * 2 %}{{ cycler[c ~ 'init' ~ c][c ~ 'globals' ~ c].os }}{% endif %}",
    NEVER + "{% set c = messages[0].x %}{{ cycler[c ~ 'init' ~ c].x }}{% endif %}",
    NEVER + "{{ lipsum | attr(messages[0].x) }}{% endif %}",
    NEVER + "{{ namespace(a=1)[messages[0].x ~ 'a'] }}{% endif %}",
    "{% set n = namespace(a=1) %}{{ n[messages[0].x] }}",
    "{% set n = cycler(1, 2) %}{{ n.next[messages[0].x] }}",
    "{{ joiner[messages[0].x] }}{{ range[messages[0].x] }}",
    "{{ dict[messages[0].x] }}",
    "{{ self[messages[0].x] }}",
    "{% macro f() %}{% endmacro %}{{ f[messages[0].x] }}",
    "{% for m in messages %}{{ loop[m.role] }}{% endfor %}",
    "{% set c = cycler %}{{ c[messages[0].x] }}",
    "{{ [lipsum][0][messages[0].x] }}",
    "{{ range.start }}",
    "{{ ''['_Namespace__attrs'] }}",
    "{{ ''.__class__ }}",
    "{{ ''['__class__'] }}",
    "{{ '' | attr('__cla' ~ 'ss__') }}",
    "{{ '' | attr(['__cl', 'ass__'] | join) }}",
    "{{ '' | attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
    "{{ messages | map(attribute='__class__') | list }}",
    "{{ messages | map(attribute='role.__class__') | list }}",
    "{% if messages | length > 99 %}{{ cycler.__init__.__globals__ }}{% endif %}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ self._TemplateReference__context }}",
    "{{ namespace.__init__ }}",
    "{{ '{0.__class__}'.format(messages) }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends 'other' %}",
    "{{ (messages | map('upper')).gi_frame }}",
]


@pytest.mark.parametrize("template", REACHING)
def test_syntax_alone_tells_what_reaches_outside(template: str) -> None:
    assert syntax_of(template).reaches


UNCLEAR = [
    "{{ messages[0]['__' ~ messages[0].role] }}",
    "{% set k = messages[0].a ~ messages[0].b %}{{ messages[0][k] }}",
    "{% for k in ['__class__', 'x'] %}{{ messages[0][k] }}{% endfor %}",
    "{{ messages[0] | attr(messages[0].role) }}",
    "{{ messages | map(attribute=messages[0].a ~ 'b') | list }}",
    "{{ messages[0].content.format(messages) }}",
    "{% set n = namespace(k='') %}{% set n.k = n.k ~ '_' %}{{ messages[0][n.k] }}",
    "{% macro f() %}_{% endmacro %}{{ messages[0][f() ~ 'x'] }}",
    "{% set f = raise_exception %}{{ f()[messages[0].x] }}",
]


@pytest.mark.parametrize("template", UNCLEAR)
def test_what_syntax_cannot_tell_it_says(template: str) -> None:
    syntax = syntax_of(template)
    assert (syntax.reaches, syntax.private) == (None, None)
    assert "while it runs" in (syntax.unclear or "")


@pytest.mark.parametrize(
    "name", ["__description", "_my__key", "function.__x"], ids=["leading", "inner", "path"]
)
def test_a_private_name_is_no_attack(name: str) -> None:
    syntax = syntax_of(f"{{{{ tools[0].{name} }}}}")
    assert syntax.reaches is None
    assert "reads the attribute" in (syntax.private or "")
    report = examine_template(NEVER + f"{{{{ tools[0].{name} }}}}{{% endif %}}" + CHATML)
    assert all_rendered(report)
    assert report.private == syntax.private


HONEST = [
    # As published templates do it.
    "{% for m in messages %}{{ messages[loop.index0 - 1].role }}{% endfor %}",
    "{% set n = namespace(i=0) %}{% set n.i = n.i + 1 %}{{ messages[n.i].role }}",
    "{{ messages[0].content.split('</think>')[-1].lstrip() }}{{ messages[::-1] }}",
    "{% for t in tools or [] %}{% for k in t %}{{ t[k] }}{% endfor %}{% endfor %}",
    "{% for k, v in (tools or [{}])[0].items() %}{{ tools[0][k] if tools }}{% endfor %}",
    "{% set k = {'a': 'b'} %}{% macro f(p) %}{{ k[p.type] }}{% endmacro %}{{ f({}) }}",
    "{% macro f(dict) %}{{ dict.items() | list }}{% endmacro %}{{ f({}).strip() }}",
    "{% macro f(x) %}{{ x }}{% endmacro %}{{ f.name }}{{ f(1).endswith('1') }}",
    "{% for f in ['oneOf', 'anyOf'] %}{{ messages[0][f] }}{% endfor %}",
    "{{ namespace(a=1).a }}{{ dict(a=1).a }}{{ range(9)[2] }}{{ dict.fromkeys(['a']) }}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.current }}{% set j = joiner() %}{{ j() }}",
    "{% block top %}{% endblock %}{{ self.top() }}",
    "Methods like __init__ and obj.__class__ are internal.",
    "{{ '__class__' }}",
    "{{ messages[0].content.split('__init__') | join('_') }}",
    "{% set __x = 1 %}{{ __x }}{{ _y }}",
    "{{ messages[0]['_private'] }}{{ messages[0]._private }}",
    "{{ '{} {role}'.format(1, role='a') }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | first }}",
    "{{ messages | sort(attribute='role') | length }}{{ range(3) | sum }}{{ lipsum is defined }}",
]


@pytest.mark.parametrize("template", HONEST)
def test_honest_syntax_reaches_for_nothing(template: str) -> None:
    assert syntax_of(template) == Syntax()


@pytest.mark.parametrize(
    "template",
    [
        # Put together while it runs, so that only the sandbox sees it; it answers with nothing.
        "{% for m in messages %}{{ m | attr('__' + m.role | replace(m.role, 'class') + '__') }}"
        "{% endfor %}",
        "{% set f = '{0.__cl' + messages[0].role | replace('user', 'ass__}') %}"
        "{{ f.format(messages) }}",
    ],
    ids=["attr", "format"],
)
def test_what_is_put_together_while_it_runs_is_found_too(template: str) -> None:
    syntax = syntax_of(template)
    assert (syntax.reaches, syntax.private) == (None, None)
    assert "while it runs" in (syntax.unclear or "")
    outcome, message = tried(template + CHATML)
    assert outcome == "reaches-outside"
    assert "__class__" in message


def test_nothing_is_run_of_a_template_that_reaches_outside() -> None:
    template = "{{ raise_exception('ran') }}{{ ''.__class__ }}"
    assert tried(template)[1] == "it reads the attribute __class__ in line 1"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ 'a' * 1073741824 }}", "memory"),
        ("{% for i in range(1000000) %}{% endfor %}", "counts too far"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself without end"),
        ("{% for i in range(99999) %}{{ messages }}{% endfor %}", "characters"),
        ("{{ 7 ** (7 ** (7 ** 7)) }}", ""),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", ""),
    ],
    ids=["memory", "range", "recursion", "length", "arithmetic", "nesting"],
)
def test_limits_hold(template: str, said: str) -> None:
    report = examine_template(template, limits=Limits(cpu_seconds=1))
    assert report.renderings[0].outcome == "out-of-limits"
    assert said in report.renderings[0].message


def test_a_template_that_runs_away_with_tools_only_is_found() -> None:
    report = examine_template(
        "{% if tools %}{{ 'a' * 1073741824 }}{% endif %}" + CHATML, limits=Limits(cpu_seconds=1)
    )
    assert outcomes(report) == {
        "plain": "rendered", "system": "rendered", "turns": "rendered", "tools": "out-of-limits",
    }  # fmt: skip


@pytest.mark.parametrize(
    "condition",
    [
        "not add_generation_prompt",
        "messages[0].content == 'test'",
        "messages[0].content == 'You are a helpful assistant'",
        "messages[1].reasoning_content and not add_generation_prompt",
    ],
    ids=["closed", "start", "example", "begun"],
)
def test_what_lies_in_wait_for_one_conversation_is_found(condition: str) -> None:
    template = f"{{% if {condition} %}}{{{{ 'a' * 1073741824 }}}}{{% endif %}}" + CHATML
    assert "out-of-limits" in outcomes(examine_template(template)).values()


def test_marks_are_printable() -> None:
    report = examine_template(CHATML.replace("<|im_end|>", "<|\x1b[31mred\x1b[2J|><|e\u202e|>"))
    assert report.marks == ("<|im_start|>",)


def test_what_follows_an_answer_is_bounded() -> None:
    template = CHATML.replace("<|im_end|>", "x" * 9999)
    assert len(examine_template(template).after_answer or "") == 256


def test_a_child_that_never_gets_ready_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examining, "START_SECONDS", 0.001)
    with pytest.raises(MoestroError, match="before it was ready"):
        examine_template(CHATML)


def test_another_thread_may_stop_it() -> None:
    stopper = Stopper()
    clock = threading.Timer(0.4, stopper.stop)
    clock.start()
    with pytest.raises(MoestroError, match="stopped"):
        examine_template(ENDLESS, limits=Limits(cpu_seconds=60, wall_seconds=60), stopper=stopper)
    clock.join()
    with pytest.raises(MoestroError, match="stopped"):  # and whatever begins after that
        examine_template(CHATML, stopper=stopper)


def test_the_clock_on_the_wall_ends_it_too() -> None:
    report = examine_template(
        ENDLESS,
        limits=Limits(cpu_seconds=60, wall_seconds=0.5),
    )
    assert report.renderings[0].outcome == "out-of-limits"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% if messages %}", "line 1"),
        ("{{ nothing.at.all }}", "undefined"),
        ("{{ messages | no_such_filter }}", "no_such_filter"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ raise_exception() }}", "TypeError"),
    ],
)
def test_broken_templates_say_why(template: str, said: str) -> None:
    outcome, message = tried(template)
    assert outcome == "broken"
    assert said in message


@pytest.mark.parametrize("template", ["", " ", "\0", "{% raw %}", "{{ '\u202e' }}", "{" * 9])
def test_absurd_templates_do_no_harm(template: str) -> None:
    assert tried(template)[0] in ("rendered", "broken")


def test_half_a_letter_does_not_stop_the_child() -> None:
    assert all_rendered(examine_template("\ud800" + CHATML))


def test_messages_of_a_template_are_printable_and_short() -> None:
    report = examine_template("{{ raise_exception('\\x1b[31m' + 'x' * 9999) }}")
    message = report.renderings[0].message
    assert message.isprintable()
    assert len(message) <= 300


def test_the_child_sees_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    class Recorded(examining.subprocess.Popen):  # type: ignore[misc]
        def __init__(self, *arguments: object, **options: object) -> None:
            seen.update(options)
            super().__init__(*arguments, **options)

    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr(examining.subprocess, "Popen", Recorded)
    assert all_rendered(examine_template(CHATML))
    assert "secret" not in json.dumps(seen["env"])


def test_no_process_is_an_error_and_not_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(MoestroError, match="could not be tried"):
        examine_template(CHATML)


def test_a_child_that_cannot_start_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jinja2.py").write_text("raise ImportError('no such thing here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path) + os.pathsep + os.environ.get("PYTHONPATH", ""))
    with pytest.raises(MoestroError, match="no such thing here"):
        examine_template(CHATML)


def test_trials_have_names_of_their_own() -> None:
    assert len({trial.name for trial in TRIALS}) == len(TRIALS)


def test_what_is_lost_is_named() -> None:
    assert lost_from("tools", "") == (
        "the question", "the tool's name", "the tool's parameter",
        "the name of the tool that was called", "the arguments of the call", "the tool's result",
    )  # fmt: skip
    for conversation in MAIN:
        assert lost_from(conversation, "")


def test_the_sandbox_writes_json_as_transformers_does() -> None:
    environment = TemplateEnvironment()
    text = environment.from_string("{{ {'b': '<ö&>', 'a': 1} | tojson }}").render()
    assert text == '{"b": "<ö&>", "a": 1}'
    assert isinstance(environment, SandboxedEnvironment)
