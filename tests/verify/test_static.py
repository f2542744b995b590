"""Planted faults have to be named, clean files must not be: by what lies in the files alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from moestro.errors import ModelTruncated
from moestro.findings import Finding, Severity
from moestro.model import read_model
from moestro.verify.fingerprint import Fingerprint, take_fingerprint
from moestro.verify.static import check_static
from tests.planted import FAULTS, plant
from tests.rewriting import Gguf
from tests.tiny_models import write_tiny
from tests.verify.probing import probe_in_this_process
from tests.verify.quantized import quantized_copy

ARCHITECTURES = ("qwen35moe", "deepseek2", "glm4moe", "mixtral")
PLANTED = ("qwen35moe", "deepseek2", "wide", "quantized")
"""Hybrid with shared expert and MTP; sigmoid with biases; Mixtral's in F32 and in Q8_0."""
TYPES = ("BF16", "F16", "Q8_0", "Q5_1", "Q5_0", "IQ4_NL", "Q4_1", "Q4_0", "MXFP4", "NVFP4")
WIDE_TYPES = ("Q6_K", "Q5_K", "Q4_K", "IQ4_XS", "Q3_K", "Q2_K", "IQ3_S")
"""Those whose tables ggml makes in a moment; the others were tried by hand."""

Print = Callable[[Path], Fingerprint]
Sources = dict[str, tuple[Path, Fingerprint]]


@pytest.fixture(autouse=True, scope="module")
def _no_children() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        probe_in_this_process(patch)
        yield


def fingerprint(path: Path) -> Fingerprint:
    return take_fingerprint(read_model(path))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Fingerprint]:
    """Rows of 256 values with heavy tails, as K-quants want them and trained models have them."""
    folder = tmp_path_factory.mktemp("wide")
    file = Gguf.open(write_tiny("mixtral", folder))
    random = np.random.default_rng(7)
    for name, shape in (("ffn_up_exps", (4, 64, 512)), ("ffn_gate_exps", (4, 64, 512)),
                        ("attn_q", (96, 256))):  # fmt: skip
        for block in (0, 1):
            values = (0.02 * random.standard_t(4, shape)).astype(np.float32)
            file.store(f"blk.{block}.{name}.weight", values, "F32")
    norm = 1 + 0.1 * random.standard_normal(file.values("output_norm.weight").shape)
    file.store("output_norm.weight", norm.astype(np.float32))
    path = file.write(folder / "wide.gguf")
    return path, fingerprint(path)


@pytest.fixture(scope="module")
def sources(wide: tuple[Path, Fingerprint], tmp_path_factory: pytest.TempPathFactory) -> Sources:
    folder = tmp_path_factory.mktemp("static")
    paths = {name: write_tiny(name, folder) for name in ARCHITECTURES}
    paths["quantized"] = quantized_copy(paths["mixtral"], folder / "quantized.gguf", "Q8_0")
    return {"wide": wide, **{name: (path, fingerprint(path)) for name, path in paths.items()}}


def beyond_info(findings: tuple[Finding, ...]) -> list[Finding]:
    return [f for f in findings if f.severity in (Severity.WARN, Severity.FAIL)]


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_named_in_every_architecture(
    name: str, sources: Sources, tmp_path: Path
) -> None:
    fault = FAULTS[name]
    fitting = [own for own in PLANTED if fault.fits(Gguf.open(sources[own][0]))]
    assert fitting
    for own in fitting:
        source, reference = sources[own]
        target = plant(name, source, tmp_path / "faulty.gguf")
        if name == "truncated":
            with pytest.raises(ModelTruncated):
                read_model(target)
            continue
        found = beyond_info(check_static(reference, fingerprint(target)))
        codes = {finding.code for finding in found}
        if fault.harmless:
            assert not codes, own
            continue
        assert codes & fault.codes, own
        assert len(found) <= 3, own
        assert all(finding.evidence and finding.fix for finding in found)


@pytest.mark.parametrize("kind", TYPES)
def test_clean_quantizations_raise_nothing(kind: str, sources: Sources, tmp_path: Path) -> None:
    source, reference = sources["glm4moe"]
    target = quantized_copy(source, tmp_path / "clean.gguf", kind)
    assert beyond_info(check_static(reference, fingerprint(target))) == []


@pytest.mark.parametrize("kind", WIDE_TYPES)
@pytest.mark.parametrize("importance", [None, 3])
def test_clean_quantizations_of_heavy_tails_raise_nothing(
    kind: str, importance: int | None, wide: tuple[Path, Fingerprint], tmp_path: Path
) -> None:
    source, reference = wide
    target = quantized_copy(source, tmp_path / "clean.gguf", kind, importance_seed=importance)
    candidate = fingerprint(target)
    assert candidate.by_name["blk.0.ffn_up_exps.weight"].type == kind
    assert beyond_info(check_static(reference, candidate)) == []


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1", "F16", "BF16"])
def test_the_reference_may_be_quantized_itself(kind: str, sources: Sources, tmp_path: Path) -> None:
    source, original = sources["deepseek2"]
    reference = fingerprint(quantized_copy(source, tmp_path / "reference.gguf", kind))
    candidate = fingerprint(quantized_copy(source, tmp_path / "candidate.gguf", "Q5_0"))
    assert beyond_info(check_static(reference, candidate)) == []
    assert beyond_info(check_static(reference, original)) == []


@pytest.mark.parametrize("fault", ["experts-swapped", "expert-zeroed", "attention-flipped",
                                   "router-4-bits", "blocks-swapped"])  # fmt: skip
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_faults_are_seen_through_quantization(
    fault: str, kind: str, sources: Sources, tmp_path: Path
) -> None:
    source, reference = sources["qwen35moe"]
    faulty = plant(fault, source, tmp_path / "faulty.gguf")
    target = quantized_copy(faulty, tmp_path / "both.gguf", kind)
    found = beyond_info(check_static(reference, fingerprint(target)))
    assert {finding.code for finding in found} & FAULTS[fault].codes


def test_a_renumbering_survives_quantization(sources: Sources, tmp_path: Path) -> None:
    source, reference = sources["glm4moe"]
    other = plant("experts-renumbered", source, tmp_path / "other.gguf")
    found = check_static(reference, fingerprint(quantized_copy(other, tmp_path / "q.gguf", "Q4_0")))
    assert [(f.severity, f.code) for f in found] == [(Severity.INFO, "experts-renumbered")]


def test_an_identical_file_passes_even_with_everything_odd(tmp_path: Path) -> None:
    path = write_tiny("mixtral", tmp_path)
    file = Gguf.open(path)
    file.store("blk.0.ffn_gate_inp.weight", file.values("blk.0.ffn_gate_inp.weight"), "Q4_0")
    odd = fingerprint(file.write(tmp_path / "odd.gguf"))
    assert check_static(odd, odd) == ()


def test_values_that_are_not_finite_are_told_of_identical_files_too(tmp_path: Path) -> None:
    file = Gguf.open(write_tiny("mixtral", tmp_path))
    values = file.values("blk.0.attn_q.weight")
    values[3, 4] = np.nan
    file.store("blk.0.attn_q.weight", values)
    bad = fingerprint(file.write(tmp_path / "bad.gguf"))
    found = check_static(bad, bad)
    assert [(f.severity, f.code) for f in found] == [
        (Severity.FAIL, "bad-values"),
        (Severity.WARN, "bad-values"),
    ]
    assert "attn_q.weight: 1 row, first row 3" in str(found[0].evidence)


@pytest.mark.parametrize(("kind", "severity"), [("Q8_0", Severity.WARN), ("Q4_0", Severity.FAIL)])
def test_how_bad_a_quantized_router_is_depends_on_its_bits(
    kind: str, severity: Severity, sources: Sources, tmp_path: Path
) -> None:
    source, reference = sources["deepseek2"]
    file = Gguf.open(source)
    name = "blk.1.ffn_gate_inp.weight"
    file.store(name, file.values(name), kind)
    found = beyond_info(check_static(reference, fingerprint(file.write(tmp_path / "router.gguf"))))
    assert [(f.severity, f.code) for f in found] == [(severity, "router-quantized")]
    assert "1 of 2 router tensors" in str(found[0].evidence)


def test_row_cosines_are_what_they_are(sources: Sources, tmp_path: Path) -> None:
    """Three of eight rows are turned by known angles."""
    source, reference = sources["deepseek2"]
    file = Gguf.open(source)
    name = "blk.1.ffn_gate_inp.weight"
    rows = file.values(name)
    random = np.random.default_rng(0)
    for row, cosine in ((0, 0.9995), (3, 0.995), (5, 0.95)):
        aside = random.standard_normal(rows.shape[1])
        unit = rows[row] / np.linalg.norm(rows[row])
        aside -= (aside @ unit) * unit
        aside *= np.linalg.norm(rows[row]) / np.linalg.norm(aside)
        rows[row] = cosine * rows[row] + np.sqrt(1 - cosine**2) * aside
    file.store(name, rows)
    (finding,) = check_static(reference, fingerprint(file.write(tmp_path / "turned.gguf")))
    assert finding.code == "router-differs"
    assert "of 8 rows 2 below 0.999 and 1 below 0.99" in str(finding.evidence)


def test_a_head_that_is_the_embedding_table_may_be_written_twice(tmp_path: Path) -> None:
    tied = write_tiny("llama", tmp_path)
    file = Gguf.open(tied)
    table = file.values("token_embd.weight")
    file.store("output.weight", table, "F32")
    written = fingerprint(file.write(tmp_path / "written.gguf"))
    assert check_static(fingerprint(tied), written) == ()
    assert check_static(written, fingerprint(tied)) == ()
    file.store("output.weight", table[::-1].copy(), "F32")
    untied = fingerprint(file.write(tmp_path / "untied.gguf"))
    assert [f.code for f in check_static(fingerprint(tied), untied)] == ["tensor-differs"]
    assert [f.code for f in check_static(untied, fingerprint(tied))] == ["tensor-differs"]


def test_gate_and_up_may_be_one_tensor(sources: Sources, tmp_path: Path) -> None:
    source, reference = sources["mixtral"]
    file = Gguf.open(source)
    for block in (0, 1):
        names = [f"blk.{block}.ffn_{part}_exps.weight" for part in ("gate", "up")]
        parts = [file.values(name) for name in names]
        for name in names:
            del file.tensors[name]
        merged = np.concatenate(parts, axis=1)
        file.store(f"blk.{block}.ffn_gate_up_exps.weight", merged, "F32")
    fused = fingerprint(file.write(tmp_path / "fused.gguf"))
    assert check_static(reference, fused) == ()
    assert check_static(fused, reference) == ()


def test_another_architecture_ends_the_comparison(sources: Sources) -> None:
    (finding,) = check_static(sources["mixtral"][1], sources["deepseek2"][1])
    assert (finding.severity, finding.code) == (Severity.FAIL, "architecture-differs")


def test_another_shape_is_told_once(sources: Sources, tmp_path: Path) -> None:
    source, reference = sources["mixtral"]
    file = Gguf.open(source)
    for block in (0, 1):
        name = f"blk.{block}.ffn_down_exps.weight"
        file.store(name, file.values(name)[:3], "F32")
    (finding,) = check_static(reference, fingerprint(file.write(tmp_path / "other.gguf")))
    assert finding.code == "tensor-differs"
    assert "2 of them" in str(finding.evidence)


def test_what_many_tensors_share_is_one_finding(sources: Sources, tmp_path: Path) -> None:
    source, reference = sources["qwen35moe"]
    file = Gguf.open(source)
    for name, tensor in list(file.tensors.items()):
        if len(tensor.dims) == 2 and "attn" in name:
            file.store(name, -file.values(name))
    (finding,) = check_static(reference, fingerprint(file.write(tmp_path / "all.gguf")))
    assert (finding.severity, finding.code) == (Severity.FAIL, "tensor-differs")
    said = re.search(r"^14 tensors in 5 layers; .* by ([\d.]+)% ", str(finding.evidence))
    assert said is not None
    assert float(said[1]) == pytest.approx(200, rel=0.2)
