"""The model checks beyond the set-ups: clean models without trouble, and what lies between."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moestro.demo import model_path
from moestro.doctor.case import Case, ModelCase
from moestro.doctor.check import Check
from moestro.doctor.checks import (
    complete,
    context_length,
    readable,
    router_precision,
    template_present,
    template_right,
    template_safe,
    tokenizer,
)
from moestro.doctor.checks import low_bit as low_bit_check
from moestro.doctor.examine import examine
from moestro.doctor.template.conversations import TOOL_NAME, TOOL_PARAMETER
from moestro.doctor.template.report import Rendering, TemplateReport
from moestro.doctor.template.stopper import Stopper
from moestro.doctor.template.text_reports import look_at_text
from moestro.engine.tokenizer import AnswerEnd, RoundTrip
from moestro.errors import EngineStartFailed, ModelError, MoestroError
from moestro.findings import Finding, Severity
from moestro.model import read_model
from moestro.model.completeness import Completeness, FileState, look_at_files
from moestro.model.spec import RopeScaling
from tests.doctor.model_checks import MODEL
from tests.doctor.setups_model import SETUPS, low_bit, rewritten, with_keys
from tests.doctor.workshop import Workshop, planned, template_report, tokenizer_report
from tests.doctor.workshop import model as workshop_model
from tests.model.test_hugging_face import folder_of
from tests.rewriting import Gguf
from tests.shapes import PUBLISHED, write_header
from tests.smollm import smollm
from tests.tiny_models import CHATML


def findings(case: Case) -> list[Finding]:
    return [finding for answer in examine(case, MODEL) for finding in answer.findings]


def test_nothing_is_wrong_with_the_workshops_model(workshop: Workshop) -> None:
    assert [f for f in findings(workshop.case()) if f.severity is not Severity.OK] == []


def test_a_report_without_a_model_says_nothing_of_models(workshop: Workshop) -> None:
    assert findings(workshop.case(model=None, plan=None)) == []


def gathered(workshop: Workshop, path: Path, *, hashes: int = 0) -> Case:
    """Everything that the doctor finds out about a file, for real."""
    spec, seen = read_model(path), look_at_text(read_model(path))
    state = look_at_files(spec, hash_up_to_bytes=hashes)
    case = ModelCase(spec, (path,), state, seen.template, seen.tokenizer)
    return workshop.case(model=case, plan=None)


def codes(found: list[Finding], *severities: Severity) -> list[str]:
    return [finding.code for finding in found if finding.severity in severities]


TROUBLE = (Severity.WARN, Severity.FAIL, Severity.UNKNOWN)


def test_the_demo_model_is_clean(workshop: Workshop) -> None:
    found = findings(gathered(workshop, model_path()))
    assert codes(found, *TROUBLE) == []
    assert codes(found, Severity.INFO) == ["not-verified"]


def test_a_real_model_is_clean(workshop: Workshop) -> None:
    found = findings(gathered(workshop, smollm()))
    assert codes(found, *TROUBLE) == []
    assert codes(found, Severity.INFO) == ["not-verified", "chat-template-no-tools"]


def test_of_a_published_header_only_the_weights_are_missing(
    workshop: Workshop, tmp_path: Path
) -> None:
    path = tmp_path / "v3.gguf"
    extra = {"tokenizer.chat_template": CHATML}
    write_header(PUBLISHED["DeepSeek-V3"](), path, vocab_tokens=600, extra=extra)
    found = findings(gathered(workshop, path))
    assert codes(found, *TROUBLE) == ["model-has-holes"]


def test_up_looks_at_nothing_but_the_header(workshop: Workshop) -> None:
    quick = [check for check in MODEL if check.quick]
    bare = ModelCase(workshop.case().model.spec)  # type: ignore[union-attr]
    answers = examine(workshop.case(model=bare), quick)
    found = [finding for answer in answers for finding in answer.findings]
    assert codes(found, *TROUBLE) == []


def complete_of(workshop: Workshop, **state: Any) -> list[Finding]:
    clean = {"path": model_path(), "size_bytes": 100, "hole_bytes": 0}
    files = (FileState(**{**clean, **state}),)
    changed = replace(workshop_model(), completeness=Completeness(files))
    return list(complete.CHECK.run(workshop.case(model=changed)))


KNOWN = {"known_sha256": "ab" * 32, "known_from": "the hub's cache"}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({}, [("complete", "ok")]),
        ({"hole_bytes": None}, [("complete", "ok")]),
        ({**KNOWN}, [("model-hash-not-computed", "info")]),
        ({**KNOWN, "found_sha256": "ab" * 32}, [("complete", "ok")]),
        ({**KNOWN, "found_sha256": "cd" * 32}, [("model-modified", "fail")]),
        ({"hole_bytes": 9}, [("model-has-holes", "fail")]),
        ({**KNOWN, "found_sha256": "ab" * 32, "hole_bytes": 9}, [("complete", "ok")]),
        ({"trailing_bytes": 9}, [("model-trailing-bytes", "info"), ("complete", "ok")]),
    ],
)
def test_what_is_known_of_files(
    state: dict[str, Any], expected: list[tuple[str, str]], workshop: Workshop
) -> None:
    found = complete_of(workshop, **state)
    assert [(finding.code, str(finding.severity)) for finding in found] == expected


def test_a_look_at_files_that_failed_is_a_finding(workshop: Workshop) -> None:
    error = ModelError("part 2 could not be read: input/output error.", hint="Check the disk.")
    changed = replace(workshop_model(), completeness=error)
    (found,) = complete.CHECK.run(workshop.case(model=changed))
    assert (found.code, found.severity) == ("model-files-unreadable", Severity.FAIL)
    assert (found.evidence, found.fix) == (error.sentence, error.hint)


@pytest.mark.parametrize("name", ["no-model", "model-locked"])
def test_a_model_that_cannot_be_had_says_so(name: str, workshop: Workshop) -> None:
    (setup,) = (setup for setup in SETUPS if setup.name == name)
    (found,) = readable.CHECK.run(setup.change(workshop))
    assert found.title == "The model cannot be read"
    assert found.fix


def test_a_template_too_large_is_there_and_not_looked_at(workshop: Workshop) -> None:
    (setup,) = (setup for setup in SETUPS if setup.name == "template-too-large")
    case = setup.change(workshop)
    assert case.model is not None
    assert case.model.spec.chat_template is None
    found = [f for f in findings(case) if f.code.startswith(("chat-template", "template"))]
    assert [f.code for f in found] == ["chat-template-too-large"]
    assert "1.00 MiB" in (found[0].evidence or "")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"engine": "crashed"}, [("chat-template-runaway", "fail")]),
        ({"engine": "endless"}, [("chat-template-runaway", "fail")]),
        ({"private": "reads the attribute __x in line 1"},
         [("chat-template-private-attribute", "warn")]),
        ({"engine": None}, [("template-safe", "ok")]),  # template-right says so
        ({}, [("template-safe", "ok")]),
    ],
)  # fmt: skip
def test_how_safe_a_template_is(
    changes: dict[str, Any], expected: list[tuple[str, str]], workshop: Workshop
) -> None:
    report = replace(template_report(), **changes)
    assert text_of(workshop, template_safe.CHECK, report) == expected


def test_ok_promises_no_more_than_was_seen(workshop: Workshop) -> None:
    report = replace(template_report(), unclear="looks up a name in line 3")
    changed = replace(workshop_model(), template=report)
    (found,) = template_safe.CHECK.run(workshop.case(model=changed))
    assert found.severity is Severity.OK
    assert found.evidence == (
        "rendered in a sandbox, in a process with limits; it looks up a name in line 3, so that "
        "only what was tried is known"
    )


def test_the_engine_is_not_missed_where_it_cannot_be_asked(workshop: Workshop) -> None:
    changed = replace(workshop_model(), template=replace(template_report(), engine=None))
    case = workshop.case(model=changed)
    elsewhere = replace(case, host=workshop.host(system="Darwin"))
    assert [f.code for f in template_right.CHECK.run(elsewhere)] == ["template-right"]
    far = replace(case, model=replace(changed, tokenizer=None))
    assert [f.code for f in template_right.CHECK.run(far)] == ["template-right"]


def test_tokens_are_shown_without_what_steers_a_terminal(workshop: Workshop) -> None:
    ends = ("<\x1b[2J>", "\u202e")
    changed = replace(workshop_model(), tokenizer=replace(tokenizer_report(), ends=ends))
    (found,) = tokenizer.CHECK.run(workshop.case(model=changed))
    assert (found.evidence or "").isprintable()


def test_a_look_at_text_can_be_stopped() -> None:
    stopper = Stopper()
    stopper.stop()
    seen = look_at_text(read_model(model_path()), stopper)
    assert isinstance(seen.tokenizer, EngineStartFailed)
    assert isinstance(seen.template, MoestroError)


def text_of(
    workshop: Workshop, check: Check, template: Any = None, tokenizer: Any = None
) -> list[tuple[str, str]]:
    changed = replace(
        workshop_model(),
        template=template or template_report(),
        tokenizer=tokenizer or tokenizer_report(),
    )
    return [(f.code, str(f.severity)) for f in check.run(workshop.case(model=changed))]


def renderings(**changed: Rendering) -> tuple[Rendering, ...]:
    return tuple(changed.get(r.conversation, r) for r in template_report().renderings)


BROKEN = Rendering("plain", "broken", message="line 1: no")
NO_SYSTEM = Rendering("system", "refused", message="no system")
NO_TOOLS = Rendering("tools", "refused", message="no tools")
IGNORES_TOOLS = Rendering("tools", "rendered", "x", lost=(TOOL_NAME, TOOL_PARAMETER))
LOSES_RESULT = Rendering("tools", "rendered", "x", lost=("the tool's result",))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"renderings": renderings(plain=BROKEN), "engine": "refused"},
         [("engine-refuses-template", "fail"), ("chat-template-broken", "fail")]),
        ({"renderings": renderings(plain=BROKEN)}, [("chat-template-broken", "warn")]),
        ({"renderings": renderings(system=NO_SYSTEM)},
         [("chat-template-no-system", "info"), ("template-right", "ok")]),
        ({"renderings": renderings(tools=NO_TOOLS)},
         [("chat-template-no-tools", "info"), ("template-right", "ok")]),
        ({"renderings": renderings(tools=IGNORES_TOOLS)},
         [("chat-template-no-tools", "info"), ("template-right", "ok")]),
        ({"renderings": renderings(tools=LOSES_RESULT)}, [("chat-template-loses", "warn")]),
        ({"keeps_prefix": False},
         [("chat-template-rewrites-history", "info"), ("template-right", "ok")]),
        ({"changes_data": True},
         [("chat-template-not-portable", "info"), ("template-right", "ok")]),
        ({"opens_answer": False}, [("chat-template-opens-no-answer", "warn")]),
        ({"opens_answer": None, "keeps_prefix": None}, [("template-right", "ok")]),
        ({"engine": "refused"}, [("engine-refuses-template", "fail")]),
        ({"engine": "crashed"}, []),  # template-safe says so
        ({"engine": None}, [("engine-not-asked-about-template", "unknown")]),
    ],
)  # fmt: skip
def test_how_bad_a_template_is(
    changes: dict[str, Any], expected: list[tuple[str, str]], workshop: Workshop
) -> None:
    report = replace(template_report(), **changes)
    assert text_of(workshop, template_right.CHECK, report) == expected


def trip(kind: str, text: str, came_back: str) -> tuple[RoundTrip, ...]:
    return (RoundTrip(text, 4, came_back, kind),)


def end(piece: str, *, special: bool = True, ends: bool = False) -> AnswerEnd:
    return AnswerEnd(piece, special, ends)


FINE = [("tokenizer", "ok")]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"round_trips": trip("plain text", "Hello", "Hllo")},
         [("tokenizer-not-faithful", "fail")]),
        ({"round_trips": trip("emoji", "😀", "\ufffd")}, [("tokenizer-not-faithful", "warn")]),
        ({"round_trips": trip("blanks", "a  b", "a b")},
         [("tokenizer-not-faithful", "info"), *FINE]),
        ({"round_trips": trip("code", "a:\n  b", "a: b")}, [("tokenizer-not-faithful", "warn")]),
        ({"ends": ()}, [("answer-never-ends", "fail")]),
        ({"answer_end": end("<|over|>")}, FINE),  # the demo's template writes <|im_end|> too
        ({"answer_end": end("<|over|>"), "ends": ("<eos>",)}, [("answer-never-ends", "warn")]),
        ({"answer_end": end("\n", special=False), "ends": ("<eos>",)}, FINE),
        ({"answer_end": end("<eos>", ends=True), "ends": ("<eos>",)}, FINE),
        # Marks that are plain text to a model that was trained so.
        ({"single": {"[INST]": False, "<|user|>": False}}, FINE),
        ({"single": {"<|im_start|>": False}, "listed": frozenset({"<|im_start|>"})},
         [("template-marks-split", "warn")]),
        ({"single": {"<|im_start|>": False}, "barred": True}, [("template-marks-split", "warn")]),
        ({"single": {"<|rare|>": False}, "barred": True}, FINE),  # in no conversation's turns
        ({"pre_known": False}, [("pretokenizer-missing", "warn")]),
    ],
)  # fmt: skip
def test_how_bad_a_tokenizer_is(
    changes: dict[str, Any], expected: list[tuple[str, str]], workshop: Workshop
) -> None:
    report = replace(tokenizer_report(), **changes)
    assert text_of(workshop, tokenizer.CHECK, None, report) == expected


def test_a_look_that_failed_is_unknown_unless_the_file_is_at_fault(workshop: Workshop) -> None:
    busy = EngineStartFailed("The engine was killed.", code="engine-unavailable")
    refused = EngineStartFailed("unknown pre-tokenizer type")
    assert text_of(workshop, tokenizer.CHECK, None, busy) == [("tokenizer-not-tried", "unknown")]
    assert text_of(workshop, tokenizer.CHECK, None, refused) == [("tokenizer-refused", "fail")]
    error = MoestroError("No process.", code="template-not-tried")
    assert text_of(workshop, template_safe.CHECK, error) == [("template-not-tried", "unknown")]
    assert text_of(workshop, template_right.CHECK, error) == []


def with_scaling(
    kind: str, factor: float, original: int, length: int, context: int, workshop: Workshop
) -> list[tuple[str, str]]:
    model, plan = workshop_model(), planned()
    scaling = RopeScaling(kind, factor, original)
    spec = replace(model.spec, rope_scaling=scaling, context_length=length)
    settings = replace(plan.settings, context=context)
    case = workshop.case(model=replace(model, spec=spec), plan=replace(plan, settings=settings))
    return [(f.code, str(f.severity)) for f in context_length.CHECK.run(case)]


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        # Published: DeepSeek-V3, gpt-oss, Kimi K2, Llama 3.1 (which rounds), Phi 3.5.
        (("yarn", 40.0, 4096, 163840, 32768), [("context-length", "ok")]),
        (("yarn", 32.0, 4096, 131072, 8192), [("context-length", "ok")]),
        (("yarn", 32.0, 4096, 262144, 8192), [("context-length", "ok")]),
        (("llama3", 8.0, 8192, 131072, 8192), [("context-length", "ok")]),
        (("yarn", 4.0, 32768, 131072, 8192),
         [("rope-scaling-unneeded", "info"), ("context-length", "ok")]),
        (("yarn", 4.0, 32768, 32768, 8192),
         [("rope-scaling-odd", "info"), ("context-length", "ok")]),
        (("yarn", 2.0, 4096, 131072, 8192), [("rope-scaling-odd", "warn")]),
        (("yarn", 4.0, 32768, 131072, 200000), [("context-beyond-training", "warn")]),
    ],
)  # fmt: skip
def test_position_scaling(
    scaling: tuple[str, float, int, int, int], expected: list[tuple[str, str]], workshop: Workshop
) -> None:
    assert with_scaling(*scaling, workshop) == expected


def test_a_label_that_promises_more(workshop: Workshop) -> None:
    spec = low_bit(workshop)
    named = replace(spec.files[0], location="/models/Qwen3-30B-A3B-Q4_K_M.gguf")
    case = workshop.case(model=replace(workshop_model(), spec=replace(spec, files=(named,))))
    found = list(low_bit_check.CHECK.run(case))
    assert [f.code for f in found] == ["low-bit-experts", "label-promises-more"]
    assert found[1].evidence == (
        "Q4_K_M means about 4.50 bits per weight, the experts have 2.62"
    )  # fmt: skip


def test_biases_that_balance_experts_should_be_exact(workshop: Workshop) -> None:
    for kind, severity in (("F32", "ok"), ("F16", "info")):

        def change(file: Gguf, kind: str = kind) -> None:
            for name in [name for name in file.tensors if "exp_probs_b" in name]:
                file.store(name, file.values(name), kind)

        spec = read_model(rewritten(workshop, "deepseek2", change))
        case = workshop.case(model=replace(workshop_model(), spec=spec))
        assert [str(f.severity) for f in router_precision.CHECK.run(case)] == [severity]


def test_a_file_without_a_tokenizer(workshop: Workshop) -> None:
    spec = replace(workshop_model().spec, tokenizer="no_vocab")
    case = workshop.case(model=replace(workshop_model(), spec=spec))
    assert [f.code for f in tokenizer.CHECK.run(case)] == ["tokenizer-missing"]


def test_a_hugging_face_folder_needs_conversion(workshop: Workshop, tmp_path: Path) -> None:
    path = folder_of("qwen3moe", tmp_path)
    spec, seen = read_model(path), look_at_text(read_model(path))
    assert seen.tokenizer is None
    paths = tuple(Path(file.location) for file in spec.files)
    state = look_at_files(spec, hash_up_to_bytes=0)
    case = ModelCase(spec, paths, state, seen.template, seen.tokenizer)
    found = findings(workshop.case(model=case, plan=None))
    assert codes(found, *TROUBLE) == ["needs-conversion", "chat-template-missing"]


def test_a_second_template_serves_the_tools(workshop: Workshop) -> None:
    """Engines take it for conversations with tools, so what it keeps counts, and how long it is."""
    whole = Gguf.open(model_path()).get("tokenizer.chat_template")
    for first, second, kept in ((CHATML, whole, True), (whole, CHATML, False)):
        keys = {"chat_template": first, "chat_template.tool_use": second}
        found = with_keys("qwen3moe", **keys)(workshop).model
        assert found is not None
        assert isinstance(found.template, TemplateReport)
        assert [r.conversation for r in found.template.renderings].count("tools") == 1
        tools = found.template.of("tools")
        assert tools is not None
        assert (tools.lost == ()) is kept
    long = CHATML + " " * (1 << 21)
    large = with_keys("qwen3moe", chat_template=CHATML, **{"chat_template.tool_use": long})
    codes = [finding.code for finding in template_present.CHECK.run(large(workshop))]
    assert codes == ["chat-template-too-large"]
