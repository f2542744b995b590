"""The whole comparison, on models small enough to run in a moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from moestro.engine.llama_cpp.capture import Capture
from moestro.engine.llama_cpp.refusal import UNAVAILABLE
from moestro.errors import EngineError, ModelError, UsageError
from moestro.findings import Severity
from moestro.model import read_model
from moestro.planning.settings import Settings
from moestro.verify.corpus import Passage, built_in
from moestro.verify.policy import built_in as built_in_policy
from moestro.verify.recording import Recording, record
from moestro.verify.run import verify
from moestro.verify.subject import Options, Subject
from moestro.verify.verdict import Verdict, Verification
from tests.planted import plant
from tests.rewriting import Gguf
from tests.tiny_models import write_tiny

SETTINGS = Settings(context=512, parallel=1, threads=2)
POLICY = built_in_policy()
QUICK = Options(tokens=1024, generations=2, generated_tokens=8, files=False)
TEXT = tuple(Passage(one.domain, one.text[:2500]) for one in built_in()[:2])


def subject(path: Path) -> Subject:
    return Subject(read_model(path), SETTINGS)


def codes(found: Verification) -> set[str]:
    return {finding.code for finding in found.findings}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    folder = tmp_path_factory.mktemp("tiny")

    def make(name: str, **options: object) -> Path:
        return write_tiny(name, folder, **options)  # type: ignore[arg-type]

    return make


@pytest.mark.parametrize("name", ["qwen35moe", "deepseek2", "gpt-oss"])
def test_a_model_is_as_good_as_itself(name: str, tiny: Callable[..., Path]) -> None:
    model = subject(tiny(name))
    found = verify(model, model, TEXT, POLICY, replace(QUICK, files=True))
    assert found.verdict is Verdict.PASS
    assert found.findings == ()
    assert found.tokens == 1024
    assert found.domains == ("story", "explanation")
    assert found.divergence is not None
    assert found.divergence.kld_mean is not None
    assert found.divergence.kld_mean.value == 0
    assert found.divergence.tokens == 2 * 255
    assert found.routing is not None
    assert found.routing.overlap.value == 1
    assert [layer.layer for layer in found.routing.layers] == list(
        read_model(tiny(name)).expert_blocks[: len(found.routing.layers)]
    )
    assert found.repetition is not None
    assert found.repetition.excess.value == 0
    assert len(found.candidate.digests) == 1


def test_another_model_of_the_same_shape_fails(tiny: Callable[..., Path]) -> None:
    reference = subject(tiny("qwen3moe"))
    other = subject(tiny("qwen3moe", seed=7, filename="other.gguf"))
    found = verify(other, reference, TEXT, POLICY, replace(QUICK, files=True))
    assert found.verdict is Verdict.FAIL
    assert "router-differs" in codes(found)
    assert found.routing is not None
    # Two routers without anything in common agree by chance only: 2 of 8.
    assert abs(found.routing.overlap.value - found.routing.chance_overlap) < 0.15


def test_a_recording_says_what_the_model_itself_says(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    reference = subject(tiny("qwen35moe"))
    candidate = subject(plant("router-4-bits", tiny("qwen35moe"), tmp_path / "candidate.gguf"))
    options = replace(QUICK, files=True)
    live = verify(candidate, reference, TEXT, POLICY, options)
    kept = tmp_path / "reference.moeref"
    record(reference, TEXT, kept, options)
    with Recording(kept) as recording:
        assert recording.compared.name == reference.name
        stored = verify(candidate, recording, (), POLICY, options)
    assert codes(stored) == codes(live)
    assert stored.tokens == live.tokens
    assert stored.divergence is not None
    assert live.divergence is not None
    assert stored.divergence.kld_mean is not None
    assert live.divergence.kld_mean is not None
    assert stored.divergence.kld_mean.value == pytest.approx(
        live.divergence.kld_mean.value, rel=0.02, abs=1e-6
    )
    assert stored.divergence.perplexity == pytest.approx(live.divergence.perplexity, rel=1e-4)
    assert stored.routing is not None
    assert live.routing is not None
    assert stored.routing.overlap == live.routing.overlap
    assert stored.repetition == live.repetition


def test_experts_with_other_numbers_are_the_same_experts(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    other = plant("experts-renumbered", tiny("qwen35moe"), tmp_path / "renumbered.gguf")
    found = verify(
        subject(other), subject(tiny("qwen35moe")), TEXT, POLICY, replace(QUICK, files=True)
    )
    assert found.verdict is Verdict.PASS
    assert codes(found) == {"experts-renumbered"}
    assert found.routing is not None
    assert found.routing.overlap.value > 0.99
    assert found.routing.router_kl is not None
    assert found.routing.router_kl.value < 1e-4


def test_a_dense_model_has_no_routing(tiny: Callable[..., Path]) -> None:
    model = subject(tiny("llama"))
    found = verify(model, model, TEXT, POLICY, QUICK)
    assert found.verdict is Verdict.PASS
    assert codes(found) == {"dense-model"}
    assert found.routing is None
    assert found.to_json()["routing"] is None
    assert found.divergence is not None


@pytest.mark.parametrize("files", [True, False])
def test_another_vocabulary_cannot_be_compared(
    files: bool, tiny: Callable[..., Path], tmp_path: Path
) -> None:
    from moestro.demo import model_path

    found = verify(
        subject(model_path()), subject(tiny("qwen35moe")), TEXT, POLICY, replace(QUICK, files=files)
    )
    assert found.verdict is Verdict.FAIL
    assert "vocabulary-differs" in codes(found)
    assert found.divergence is None


def test_a_candidate_that_the_engine_refuses_has_failed(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    broken = write_tiny("mixtral", tmp_path, skip=("blk.1.ffn_norm",))
    found = verify(subject(broken), subject(tiny("mixtral")), TEXT, POLICY, QUICK)
    assert found.verdict is Verdict.FAIL
    assert codes(found) == {"engine-refused"}
    (finding,) = found.findings
    assert "blk.1.ffn_norm.weight" in str(finding.evidence)


def test_a_reference_that_the_engine_refuses_is_an_error(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    broken = write_tiny("mixtral", tmp_path, skip=("blk.1.ffn_norm",))
    with pytest.raises(EngineError, match=r"blk\.1\.ffn_norm\.weight"):
        verify(subject(tiny("mixtral")), subject(broken), TEXT, POLICY, QUICK)


def dies_with(ending: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """The candidate's engine does, in its second chunk."""
    chunk = Capture.chunk
    calls = 0

    def dying(self: Capture, *arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 4:  # reference, candidate, reference, candidate
            assert self._process is not None
            os.kill(self._process.pid, ending)
        return chunk(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Capture, "chunk", dying)


def test_a_candidate_that_crashes_on_the_way_has_failed(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    dies_with(signal.SIGABRT, monkeypatch)
    model = subject(tiny("mixtral"))
    found = verify(model, model, TEXT, POLICY, QUICK)
    assert "engine-refused" in codes(found)
    assert found.verdict is Verdict.FAIL
    assert found.tokens == 512  # what was seen before counts


def test_an_engine_that_others_end_says_nothing_of_the_file(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    dies_with(signal.SIGKILL, monkeypatch)
    model = subject(tiny("mixtral"))
    with pytest.raises(EngineError, match="SIGKILL") as error:
        verify(model, model, TEXT, POLICY, QUICK)
    assert error.value.code == UNAVAILABLE


@pytest.mark.parametrize("stored", [False, True])
def test_a_lost_token_at_the_beginning_is_another_tokenizer(
    stored: bool, tiny: Callable[..., Path], tmp_path: Path
) -> None:
    file = Gguf.open(tiny("mixtral"))
    file.set("tokenizer.ggml.add_bos_token", True)
    file.set("tokenizer.ggml.bos_token_id", 5)
    reference = subject(file.write(tmp_path / "reference.gguf"))
    candidate = subject(tiny("mixtral"))
    if stored:
        kept = tmp_path / "reference.moeref"
        record(reference, TEXT, kept, QUICK)
        with Recording(kept) as recording:
            found = verify(candidate, recording, (), POLICY, QUICK)
    else:
        found = verify(candidate, reference, TEXT, POLICY, QUICK)
    (finding,) = [finding for finding in found.findings if finding.severity is Severity.FAIL]
    assert finding.code == "tokenizer-differs"
    assert "token 5" in str(finding.evidence)


def test_routers_that_cannot_be_watched_are_no_pass(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk = Capture.chunk

    def blind(self: Capture, *arguments: object) -> object:
        return replace(chunk(self, *arguments), routers={})  # type: ignore[arg-type]

    monkeypatch.setattr(Capture, "chunk", blind)
    model = subject(tiny("mixtral"))
    found = verify(model, model, TEXT, POLICY, QUICK)
    assert codes(found) == {"routing-unseen"}
    assert found.verdict is Verdict.WARN


def test_more_continuations_than_chunks(tiny: Callable[..., Path]) -> None:
    model = subject(tiny("mixtral"))
    found = verify(model, model, TEXT, POLICY, replace(QUICK, generations=5))
    assert found.repetition is not None
    assert found.repetition.prompts == 5


def test_an_interrupt_during_the_continuations_keeps_the_rest(tiny: Callable[..., Path]) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if what == "continuing texts":
            raise KeyboardInterrupt

    model = subject(tiny("mixtral"))
    found = verify(model, model, TEXT, POLICY, QUICK, stop)
    assert found.tokens == 1024
    assert found.divergence is not None
    assert codes(found) == {"interrupted"}


def test_an_interrupt_keeps_what_was_seen(tiny: Callable[..., Path]) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if what == "comparing" and done == 1:
            raise KeyboardInterrupt

    model = subject(tiny("mixtral"))
    found = verify(model, model, TEXT, POLICY, QUICK, stop)
    assert found.tokens == 512
    assert found.divergence is not None
    assert found.verdict is Verdict.WARN
    assert [finding.severity for finding in found.findings] == [Severity.UNKNOWN]


def test_an_interrupt_before_the_first_chunk_is_an_interrupt(tiny: Callable[..., Path]) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if what == "comparing":
            raise KeyboardInterrupt

    model = subject(tiny("mixtral"))
    with pytest.raises(KeyboardInterrupt):
        verify(model, model, TEXT, POLICY, QUICK, stop)


def test_a_text_that_is_too_short_is_said(tiny: Callable[..., Path]) -> None:
    model = subject(tiny("mixtral"))
    with pytest.raises(UsageError) as error:
        verify(model, model, (Passage("mine", "Too short."),), POLICY, QUICK)
    assert error.value.code == "text-too-short"


def test_a_recording_that_is_broken_off_leaves_no_file(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if what.startswith("recording") and done == 1:
            raise KeyboardInterrupt

    folder = tmp_path / "empty"
    folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        record(subject(tiny("mixtral")), TEXT, folder / "reference.moeref", QUICK, stop)
    assert list(folder.iterdir()) == []


def test_a_recording_of_something_else_is_one_sentence(tmp_path: Path) -> None:
    for content in (b"", b"not a zip", os.urandom(5000)):
        path = tmp_path / "reference.moeref"
        path.write_bytes(content)
        with pytest.raises(ModelError) as error, Recording(path):
            pass
        assert error.value.code == "reference-corrupt"
