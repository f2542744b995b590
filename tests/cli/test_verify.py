"""`moestro verify`, as a person and as a program call it; and what `up` makes of its verdict."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from moestro.cli.launch import prepare
from moestro.cli.main import main
from moestro.errors import MoestroError
from moestro.planning import Wishes
from tests.planted import plant
from tests.shapes import PUBLISHED, write_header
from tests.tiny_models import write_tiny

QUICK = ("--tokens", "1024", "--generations", "1")


@pytest.fixture(autouse=True)
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOESTRO_DATA", str(tmp_path / "data"))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny("qwen35moe", tmp_path_factory.mktemp("models"))


def verify(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    status = main(["verify", *arguments, "--json"])
    out, _ = capsys.readouterr()
    return status, json.loads(out)


def test_the_json_that_others_rely_on(reference: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = verify(capsys, str(reference), "--reference", str(reference), *QUICK)
    assert status == 0
    assert found["verdict"] == "pass"
    assert found["tokens"] == 1024
    for key in ("kld_mean", "kld_p99", "top1_agreement", "perplexity", "perplexity_reference"):
        assert isinstance(found["divergence"][key], float)
    assert found["routing"]["overlap"] == 1
    for layer in found["routing"]["layers"]:
        assert {
            "layer", "overlap", "router_kl", "effective_experts", "effective_experts_reference",
            "max_load",
        } <= set(layer)  # fmt: skip
    assert found["findings"] == []


def test_a_failed_file_is_refused_by_up_until_it_passes(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = plant("router-2-bits", reference, tmp_path / "bad.gguf")
    prepare(str(bad), Wishes())  # nothing is known of it yet
    status, found = verify(capsys, str(bad), "--reference", str(reference), *QUICK)
    assert status == 1
    assert found["verdict"] == "fail"
    with pytest.raises(MoestroError) as error:
        prepare(str(bad), Wishes())
    assert error.value.code == "verify-failed"
    assert "moestro verify found this file unfit" in error.value.sentence
    assert "--anyway" in str(error.value.hint)
    prepare(str(bad), Wishes(), anyway=True)

    # Another name does not help, a verdict of the same file that passes does.
    renamed = bad.rename(tmp_path / "good.gguf")
    with pytest.raises(MoestroError, match="unfit"):
        prepare(str(renamed), Wishes())
    # A file is always as good as itself: that says nothing.
    assert verify(capsys, str(renamed), "--reference", str(renamed), *QUICK)[0] == 0
    with pytest.raises(MoestroError, match="unfit"):
        prepare(str(renamed), Wishes())
    alike = plant("renamed", renamed, tmp_path / "alike.gguf")
    assert verify(capsys, str(renamed), "--reference", str(alike), *QUICK)[0] == 0
    prepare(str(renamed), Wishes())


def test_a_wrong_reference_condemns_nobody(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_tiny("mixtral", tmp_path)
    status, found = verify(capsys, str(other), "--reference", str(reference), *QUICK)
    assert status == 1
    assert [finding["code"] for finding in found["findings"]] == ["architecture-differs"]
    prepare(str(other), Wishes())


def test_a_truncated_file_fails_instead_of_ending_in_an_error(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = plant("truncated", reference, tmp_path / "cut.gguf")
    status, found = verify(capsys, str(cut), "--reference", str(reference), *QUICK)
    assert status == 1
    assert found["verdict"] == "fail"
    assert [finding["code"] for finding in found["findings"]] == ["model-truncated"]
    assert found["divergence"] is None


def test_a_recorded_reference_stands_in_for_the_model(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "reference.moeref"
    assert main(["verify", str(reference), "--record", str(kept), *QUICK, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["chunks"] == 2
    assert told["size_bytes"] == kept.stat().st_size
    status, found = verify(capsys, str(reference), "--reference", str(kept))
    assert status == 0
    assert found["tokens"] == 1024
    assert found["reference"]["name"] == reference.name


def test_where_both_do_not_fit_the_reference_goes_first(
    reference: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from moestro.cli import verifying

    together = verify(capsys, str(reference), "--reference", str(reference), *QUICK)[1]
    monkeypatch.setattr(verifying, "_fit_together", lambda ours, theirs: False)
    status, found = verify(capsys, str(reference), "--reference", str(reference), *QUICK)
    assert status == 0
    assert found["divergence"]["perplexity"] == pytest.approx(
        together["divergence"]["perplexity"], rel=1e-5
    )


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "--reference"),
        (("--reference", "demo", "--record", "x.moeref"), "either"),
        (("--record", "x.bin"), "moeref"),
        (("--reference", "none.moeref"), "none.moeref"),
        (("--reference", "none.gguf"), "none.gguf"),
        (("--reference", "demo", "--text", "none.txt"), "none.txt"),
        (("--reference", "demo", "--policy", "none.toml"), "none.toml"),
        (("--reference", "demo", "--tokens", "3"), "512"),
        (("--reference", "demo", "--report", "no/such/folder/page.html"), "no/such/folder"),
        (("--reference", "demo", "--report", "model.gguf"), "HTML"),
        (("--record", "no/such/folder/x.moeref"), "no/such/folder"),
        (("--record", "x.moeref", "--policy", "mine.toml"), "--policy"),
        (("--reference", "https://example.invalid/x.moeref"), "Download"),
        (("--reference", "x.moeref", "--tokens", "4096"), "--tokens"),
    ],
)
def test_wrong_use_is_one_sentence(
    arguments: tuple[str, ...], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "demo", *arguments]) in (1, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert word in err
    assert "Traceback" not in err


def test_a_page_that_cannot_be_written_does_not_hide_the_result(
    reference: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(self: Path, *arguments: object, **options: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    page = tmp_path / "page.html"
    arguments = ("--reference", str(reference), "--report", str(page), *QUICK, "--json")
    assert main(["verify", str(reference), *arguments]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["verdict"] == "pass"
    assert "No space left" in err
    assert list(tmp_path.glob("page*")) == []


def test_a_text_shorter_than_a_chunk(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "short.txt"
    text.write_text("A few words.")
    arguments = ("--reference", str(reference), "--text", str(text))
    assert main(["verify", str(reference), *arguments, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "text-too-short"


def test_a_reference_that_does_not_fit_says_where_to_record_it(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    giant = write_header(PUBLISHED["DeepSeek-V3"](), tmp_path / "giant.gguf")
    assert main(["verify", str(reference), "--reference", str(giant), "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "reference-does-not-fit"
    assert "--record" in error["hint"]
