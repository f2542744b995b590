from __future__ import annotations

from typing import Any

import pytest

from moestro.findings import Severity
from moestro.verify.fingerprint import Fingerprint
from moestro.verify.static_keys import keys_findings, tokenizer_findings

TOKENIZER = {
    "ggml.model": "gpt2",
    "ggml.pre": "qwen2",
    "ggml.tokens": "sha256:" + "a" * 64,
    "ggml.merges": "sha256:" + "b" * 64,
    "ggml.token_type": "sha256:" + "c" * 64,
    "ggml.bos_token_id": 5,
    "ggml.eos_token_id": 7,
    "ggml.padding_token_id": 7,
    "ggml.add_bos_token": False,
}


def model(
    keys: dict[str, Any] | None = None,
    tokenizer: dict[str, Any] | None = None,
    *,
    gating: str | None = "softmax",
    vocabulary: int | None = 320,
) -> Fingerprint:
    said = {**TOKENIZER, **(tokenizer or {})}
    return Fingerprint(
        name="model.gguf",
        architecture="qwen3moe",
        digests=(),
        keys=keys or {},
        tokenizer={key: value for key, value in said.items() if value is not None},
        vocabulary=vocabulary,
        gating=gating,
        mtp_layers=0,
        tensors=(),
    )


def codes(reference: dict[str, Any], candidate: dict[str, Any]) -> list[tuple[str, str]]:
    found = keys_findings(model(reference), model(candidate))
    return [(str(finding.severity), finding.code) for finding in found]


@pytest.mark.parametrize(
    ("key", "before", "now", "code"),
    [
        ("rope.freq_base", 1e6, 1e5, "rope-differs"),
        ("rope.freq_base", 1e6, None, "rope-differs"),
        ("rope.scaling.factor", None, 4.0, "rope-differs"),
        ("rope.dimension_count", 64, 128, "rope-differs"),
        ("rope.dimension_sections", (11, 11, 10, 0), (16, 24, 24, 0), "rope-differs"),
        ("expert_weights_scale", 2.5, 1.0, "gating-differs"),
        ("expert_weights_scale", 2.5, None, "gating-differs"),
        ("expert_weights_norm", True, None, "gating-differs"),
        ("expert_group_used_count", 4, 8, "gating-differs"),
        ("expert_used_count", 8, 4, "metadata-differs"),
        ("attention.layer_norm_rms_epsilon", 1e-6, 1e-5, "metadata-differs"),
        ("attention.scale", None, 0.1, "metadata-differs"),
        ("attention.head_count_kv", (0, 2, 0, 2), (2, 2, 2, 2), "metadata-differs"),
        ("feed_forward_length", 768, 512, "metadata-differs"),
        ("final_logit_softcapping", 30.0, 50.0, "metadata-differs"),
    ],
)
def test_what_changes_the_answers_fails(key: str, before: Any, now: Any, code: str) -> None:
    sides = [{} if value is None else {key: value} for value in (before, now)]
    assert codes(*sides) == [("fail", code)]
    assert codes(sides[1], sides[0]) == [("fail", code)]


@pytest.mark.parametrize(
    ("key", "before", "now"),
    [
        ("rope.freq_base", 10000.0, None),
        ("rope.freq_base", 1e6, 1e6 * (1 + 1e-7)),
        ("rope.scaling.type", "linear", None),
        ("rope.scaling.factor", 1.0, None),
        ("expert_weights_scale", 0.0, 1.0),
        ("expert_weights_norm", False, None),
        ("attention.head_count_kv", 2, (2, 2, 2)),
        ("attention.head_count_kv", (2, 2), (2, 2, 2)),
        ("attention.layer_norm_rms_epsilon", 9.999999974752427e-07, 1e-06),
        ("vocab_size", 320, 321),
        ("attention.scale", float("nan"), float("nan")),
    ],
)
def test_other_words_for_the_same_pass(key: str, before: Any, now: Any) -> None:
    sides = [{} if value is None else {key: value} for value in (before, now)]
    assert codes(*sides) == []
    assert codes(sides[1], sides[0]) == []


def test_a_lost_mtp_block_is_no_lost_layer() -> None:
    with_mtp = {"block_count": 41, "nextn_predict_layers": 1}
    assert codes(with_mtp, {"block_count": 40}) == []
    assert codes(with_mtp, {"block_count": 39}) == [("fail", "metadata-differs")]


def test_a_longer_context_is_a_warning() -> None:
    assert codes({"context_length": 4096}, {"context_length": 8192}) == [
        ("warn", "metadata-differs")
    ]


def test_a_key_of_one_converter_only_is_worth_a_line() -> None:
    assert codes({}, {"attention.key_length": 128}) == [("info", "metadata-differs")]


def test_many_differences_are_one_finding() -> None:
    before = {f"attention.number_{number}": 1 for number in range(9)}
    now = dict.fromkeys(before, 2)
    (finding,) = keys_findings(model(before), model(now))
    assert str(finding.evidence).endswith("; and 5 more")


@pytest.mark.parametrize(
    ("before", "now", "differs"),
    [
        ("softmax", "sigmoid", True),
        ("softmax", "softmax", False),
        ("softmax", "unknown", False),
        (None, "sigmoid", False),
    ],
)
def test_gating(before: str | None, now: str | None, differs: bool) -> None:
    found = keys_findings(model(gating=before), model(gating=now))
    assert [finding.code for finding in found] == (["gating-differs"] if differs else [])


@pytest.mark.parametrize(
    ("change", "severity"),
    [
        ({"ggml.tokens": "sha256:" + "d" * 64}, Severity.FAIL),
        ({"ggml.merges": "sha256:" + "d" * 64}, Severity.FAIL),
        ({"ggml.merges": None}, Severity.FAIL),
        ({"ggml.pre": "llama-bpe"}, Severity.FAIL),
        ({"ggml.pre": None}, Severity.FAIL),
        ({"ggml.add_bos_token": True}, Severity.FAIL),
        ({"ggml.bos_token_id": 6}, Severity.FAIL),
        ({"ggml.eos_token_id": 6}, Severity.WARN),
        ({"ggml.token_type": "sha256:" + "d" * 64}, Severity.WARN),
        ({"ggml.padding_token_id": 6}, None),
        ({"ggml.add_bos_token": None}, None),
    ],
)
def test_tokenizers(change: dict[str, Any], severity: Severity | None) -> None:
    found = tokenizer_findings(model(), model(tokenizer=change))
    wanted = [] if severity is None else [(severity, "tokenizer-differs")]
    assert [(finding.severity, finding.code) for finding in found] == wanted


def test_another_size_of_vocabulary_is_all_that_needs_to_be_said() -> None:
    other = model(tokenizer={"ggml.tokens": "sha256:" + "d" * 64}, vocabulary=321)
    (finding,) = tokenizer_findings(model(), other)
    assert (finding.severity, finding.code) == (Severity.FAIL, "vocabulary-differs")
    assert finding.evidence == "320 tokens in the reference, 321 here"


def test_nothing_that_a_terminal_would_obey_is_shown() -> None:
    key = "rope.\x1b[31mred"
    (finding,) = keys_findings(model({key: 1}), model({key: 2}))
    assert "\x1b" not in str(finding.evidence)
