"""One child process that answers several questions about a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from moestro.engine.child import child_command
from moestro.engine.llama_cpp.dry_run import DryRun, memory_of
from moestro.engine.llama_cpp.dry_run_process import DryRunProcess
from moestro.engine.llama_cpp.virtual_device import VirtualDevice
from moestro.errors import EngineStartFailed
from moestro.model import read_model
from moestro.planning.settings import Settings
from moestro.units import GIB
from tests.shapes import PUBLISHED, write_header, write_split

SETTINGS = Settings(context=512, parallel=2, threads=2)


def test_answers_are_to_the_byte(tiny_moe: Path):
    spec = read_model(tiny_moe)
    (host,) = memory_of(tiny_moe, SETTINGS, ()).devices
    trunk = [tensor for tensor in spec.tensors if tensor.role != "mtp"]
    assert host.device == "CPU"
    assert host.weights_bytes == sum(-(-t.size_bytes // 32) * 32 for t in trunk)
    assert host.cache_bytes == spec.cache_bytes(512, 2)
    assert host.compute_bytes > 0


def test_a_model_of_many_gigabytes_takes_no_memory(tmp_path: Path):
    """Of 16 streams with 3 snapshots the states alone would be 4 GiB."""
    path = write_header(PUBLISHED["Qwen3.6-35B-A3B"]().with_vocabulary(512), tmp_path / "m.gguf")
    settings = replace(SETTINGS, context=262144, parallel=16, mtp_depth=3)
    with DryRun(path, ()) as run:
        said = run.memory(settings)
        assert run._process is not None
        status = Path(f"/proc/{run._process.process.pid}/status")
        if status.exists():  # Linux
            peak = next(line for line in status.read_text().splitlines() if "VmHWM" in line)
            assert int(peak.split()[1]) * 1024 < GIB
    assert said.devices[0].cache_bytes > 80 * GIB
    assert said.context == 262144 * 16


def test_one_refusal_does_not_end_the_talk(tiny_moe: Path):
    with DryRun(tiny_moe, ()) as run:
        before = run.memory(SETTINGS)
        with pytest.raises(EngineStartFailed):
            run.memory(replace(SETTINGS, cache_type_v="q8_0", flash_attention="off"))
        assert run.memory(SETTINGS) == before


def test_models_that_share_keys_and_values_need_one_type(tmp_path: Path):
    path = write_header(PUBLISHED["DeepSeek-V3"]().with_vocabulary(512), tmp_path / "v3.gguf")
    with (
        DryRun(path, ()) as run,
        pytest.raises(EngineStartFailed, match=r"v3\.gguf .* both halves need one type"),
    ):
        run.memory(replace(SETTINGS, cache_type_k="q8_0", cache_type_v="q4_0"))


def test_drafting_has_a_context_of_its_own(tiny_moe: Path):
    with DryRun(tiny_moe, ()) as run:
        plain, drafting = run.memory(SETTINGS), run.memory(replace(SETTINGS, mtp_depth=3))
    assert plain.draft == ()
    (draft,) = drafting.draft
    assert draft.weights_bytes == 0
    assert draft.cache_bytes > 0
    assert drafting.devices[0].weights_bytes > plain.devices[0].weights_bytes  # the MTP block
    assert drafting.devices[0].cache_bytes > plain.devices[0].cache_bytes  # states to go back to


def test_a_model_without_mtp_refuses_to_draft(tiny_dense: Path):
    with pytest.raises(EngineStartFailed, match="no multi-token prediction"):
        memory_of(tiny_dense, replace(SETTINGS, mtp_depth=1), ())


def test_split_models_are_one(tmp_path: Path):
    shape = PUBLISHED["OLMoE-1B-7B"]().with_vocabulary(512)
    first, *_ = write_split(shape, tmp_path, "olmoe", 3)
    whole = write_header(shape, tmp_path / "whole.gguf")
    assert memory_of(first, SETTINGS, ()) == memory_of(whole, SETTINGS, ())


def test_the_vocabulary_counts_though_it_is_left_out(tmp_path: Path):
    small, large = (
        memory_of(
            write_header(PUBLISHED["SmolLM2-135M"]().with_vocabulary(n), tmp_path / f"{n}.gguf"),
            replace(SETTINGS, parallel=16, context=256),
            (),
        )
        for n in (1024, 49152)
    )
    (one,), (other,) = small.devices, large.devices
    assert other.weights_bytes > one.weights_bytes


def test_flash_attention_as_asked_and_as_found(tmp_path: Path):
    path = write_header(PUBLISHED["DeepSeek-V2-Lite"]().with_vocabulary(512), tmp_path / "m.gguf")
    gpu = (VirtualDevice("g", 24 * GIB, 24 * GIB),)
    assert memory_of(path, SETTINGS, ()).flash_attention is True
    # No CUDA kernel takes heads of 192 and 128 without grouped queries.
    assert memory_of(path, SETTINGS, gpu).flash_attention is False
    off = memory_of(path, replace(SETTINGS, flash_attention="off"), ())
    assert off.flash_attention is False


def test_an_answer_that_does_not_come(tiny_moe: Path, monkeypatch: pytest.MonkeyPatch):
    def sleeper(*_: str) -> list[str]:
        return [child_command("llama_cpp.x")[0], "-c", "import time; time.sleep(60)"]

    monkeypatch.setattr("moestro.engine.llama_cpp.dry_run_process.child_command", sleeper)
    with (
        DryRun(tiny_moe, (), timeout_seconds=0.2) as run,
        pytest.raises(EngineStartFailed, match=r"within 0\.2 s"),
    ):
        run.memory(SETTINGS)


def test_a_child_that_dies(tiny_moe: Path, monkeypatch: pytest.MonkeyPatch):
    def dying(*_: str) -> list[str]:
        return [child_command("llama_cpp.x")[0], "-c", "import os; os.abort()"]

    monkeypatch.setattr("moestro.engine.llama_cpp.dry_run_process.child_command", dying)
    with DryRun(tiny_moe, ()) as run, pytest.raises(EngineStartFailed):
        run.memory(SETTINGS)


def test_a_process_started_before_the_model_is_known(tiny_moe: Path):
    process = DryRunProcess()
    seen: list[str] = []
    with DryRun(tiny_moe, (), process=process) as run:
        assert run.memory(SETTINGS, meanwhile=lambda: seen.append("once")) == memory_of(
            tiny_moe, SETTINGS, ()
        )
    assert seen == ["once"]
    assert process.process.poll() is not None
    assert not process.folder.exists()


def test_no_room_for_temporary_files(tiny_moe: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryDirectory", full)
    with DryRun(tiny_moe, ()) as run, pytest.raises(EngineStartFailed, match="No space left"):
        run.memory(SETTINGS)


def test_repacking_and_batches_are_asked_for(tmp_path: Path):
    """Without repacking no weights are kept in a layout of this processor's; a batch below the
    ubatch is the one that is laid out; drafts from the text take rows of logits."""
    path = write_header(PUBLISHED["Qwen3-30B-A3B"]().with_vocabulary(512), tmp_path / "m.gguf")
    settings = replace(SETTINGS, context=4096)
    with DryRun(path, ()) as run:
        usual = run.memory(settings)
        plain = run.memory(replace(settings, repack=False))
        small = run.memory(replace(settings, batch=64))
        assert small == run.memory(replace(settings, ubatch=64))
        drafting = run.memory(replace(settings, ngram="simple"))
    assert plain.devices[0].weights_repacked_bytes == 0
    assert usual.devices[0].weights_repacked_bytes >= 0
    assert plain.devices[0].weights_bytes <= usual.devices[0].weights_bytes
    assert small.devices[0].compute_bytes < usual.devices[0].compute_bytes
    assert drafting.devices[0].compute_bytes >= usual.devices[0].compute_bytes
