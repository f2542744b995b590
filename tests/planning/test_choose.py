"""Settings for published shapes on made machines."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from moestro.findings import Severity
from moestro.hardware import Gpu, Machine
from moestro.model import ModelSpec, read_model
from moestro.planning import Choice, Settings, Wishes, choose
from moestro.units import GIB
from tests.shapes import PUBLISHED, write_header


def machine(memory_gib: float, cores: int = 8, gpus: tuple[Gpu, ...] = ()) -> Machine:
    return Machine(
        system="Linux",
        architecture="x86_64",
        processor="Test CPU",
        physical_cores=cores,
        usable_cores=cores,
        memory_bytes=int(memory_gib * GIB),
        memory_available_bytes=int(memory_gib * GIB),
        gpus=gpus,
    )


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelSpec]:
    """Read from header-only files of true shape."""
    folder = tmp_path_factory.mktemp("shapes")
    names = ("Qwen3.6-35B-A3B", "DeepSeek-V3", "Mixtral-8x7B", "SmolLM2-135M")
    return {
        name: read_model(write_header(PUBLISHED[name](), folder / f"{name}.gguf", vocab_tokens=256))
        for name in names
    }


def codes(choice: Choice, severity: Severity) -> list[str]:
    return [finding.code for finding in choice.findings if finding.severity is severity]


def test_a_hybrid_on_a_workstation(specs: dict[str, ModelSpec]) -> None:
    spec = specs["Qwen3.6-35B-A3B"]
    choice = choose(spec, machine(64), Wishes())
    settings = choice.settings
    assert (settings.context, settings.parallel) == (8192, 4)
    # 160 MiB of keys and values and 62.8 MiB of state for each of four streams
    assert choice.cache_bytes == 4 * (20_480 * 8192 + 65_863_680)
    assert settings.mtp_depth == 0
    assert settings.threads == 8
    assert 0 < settings.prompt_cache_bytes <= GIB
    checkpoint_bytes = settings.context_checkpoints * 4 * 65_863_680
    assert 0 < checkpoint_bytes <= 512 << 20
    assert choice.findings == ()


def test_every_choice_has_exactly_one_reason(specs: dict[str, ModelSpec]) -> None:
    names = {field.name for field in fields(Settings)}
    for spec in specs.values():
        for wishes in (Wishes(), Wishes(context=100, parallel=3, mtp=1, gpu_layers=2, ubatch=64)):
            reasons = [reason.setting for reason in choose(spec, machine(64), wishes).reasons]
            assert len(reasons) == len(set(reasons))
            # The cache types are chosen together, and share a reason.
            assert set(reasons) == names - {"cache_type_v"}


def test_what_the_user_fixed_stays_fixed(specs: dict[str, ModelSpec]) -> None:
    wishes = Wishes(
        context=50_000,
        parallel=3,
        cache_type="q4_0",
        unified=True,
        ubatch=64,
        threads=5,
        gpu_layers=7,
        mtp=2,
    )
    settings = choose(specs["Qwen3.6-35B-A3B"], machine(22), wishes).settings
    assert settings.context == 50_000
    assert settings.parallel == 3
    assert settings.cache_type_k == settings.cache_type_v == "q4_0"
    assert settings.unified
    assert settings.ubatch == 64
    assert settings.threads == 5
    assert settings.gpu_layers == 7
    assert settings.mtp_depth == 2


def test_less_memory_means_fewer_streams_then_less_context(specs: dict[str, ModelSpec]) -> None:
    spec = specs["Mixtral-8x7B"]
    weights_gib = spec.tensor_bytes / GIB
    roomy, tight, tighter = (
        choose(spec, machine(weights_gib + extra), Wishes()).settings for extra in (20.0, 5.0, 1.0)
    )
    assert (roomy.context, roomy.parallel) == (8192, 4)
    assert (tight.context, tight.parallel) == (8192, 1)
    assert tighter.context < 8192
    assert tighter.parallel == 1


def test_weights_larger_than_memory_fail_with_the_numbers(specs: dict[str, ModelSpec]) -> None:
    choice = choose(specs["DeepSeek-V3"], machine(24), Wishes())
    assert codes(choice, Severity.FAIL) == ["memory-short"]
    (finding,) = choice.findings
    assert finding.evidence is not None
    assert "24.0 GiB" in finding.evidence
    assert finding.fix is not None
    assert "smaller" in finding.fix


def test_a_context_that_does_not_fit_is_not_clamped(specs: dict[str, ModelSpec]) -> None:
    spec = specs["Mixtral-8x7B"]
    choice = choose(spec, machine(spec.tensor_bytes / GIB + 2), Wishes(context=32_768, parallel=2))
    assert choice.settings.context == 32_768
    assert codes(choice, Severity.FAIL) == ["memory-short"]


def test_gpu_memory_counts(specs: dict[str, ModelSpec]) -> None:
    spec = specs["Qwen3.6-35B-A3B"]
    card = Gpu("nvidia", "RTX 4090", 24 * GIB)
    assert codes(choose(spec, machine(8), Wishes()), Severity.FAIL) == ["memory-short"]
    assert codes(choose(spec, machine(8, gpus=(card,)), Wishes()), Severity.FAIL) == []


def test_context_beyond_training_is_a_warning(specs: dict[str, ModelSpec]) -> None:
    choice = choose(specs["SmolLM2-135M"], machine(16), Wishes(context=100_000, parallel=1))
    assert codes(choice, Severity.WARN) == ["context-beyond-training"]
    assert codes(choice, Severity.FAIL) == []


def test_mtp_without_an_mtp_layer_fails(specs: dict[str, ModelSpec]) -> None:
    choice = choose(specs["SmolLM2-135M"], machine(16), Wishes(mtp=1))
    assert codes(choice, Severity.FAIL) == ["mtp-absent"]


def test_short_trained_context_is_taken_whole(tmp_path: Path) -> None:
    shape = PUBLISHED["SmolLM2-135M"]()
    shape.metadata["llama.context_length"] = 2048
    spec = read_model(write_header(shape, tmp_path / "short.gguf", vocab_tokens=256))
    choice = choose(spec, machine(16), Wishes())
    assert choice.settings.context == 2048
    (reason,) = [reason for reason in choice.reasons if reason.setting == "context"]
    assert reason.source == "file"
