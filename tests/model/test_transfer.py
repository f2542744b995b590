"""Downloads from plain addresses: continued, checked, and never twice at once."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from moestro.errors import DownloadError, ModelNotFound
from moestro.model import Url, read_model
from moestro.model.download import cache_folder, fetch
from moestro.model.transfer import _locked, transfer
from tests.model.servers import Served, serving
from tests.shapes import write_split
from tests.tiny_models import TINY, write_tiny

CONTENT = bytes(range(256)) * 4096


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    root = tmp_path / "files"
    root.mkdir()
    (root / "big.bin").write_bytes(CONTENT)
    monkeypatch.setenv("MOESTRO_CACHE", str(tmp_path / "cache"))
    with serving(root) as served:
        yield served


def test_a_whole_file(files: Served, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    target = transfer(
        f"{files.url}/big.bin",
        tmp_path / "new" / "big.bin",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        progress=lambda here, total: seen.append((here, total)),
    )
    assert target.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in target.parent.iterdir()] == ["big.bin"]


def interrupted(files: Served, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves a third of the file behind, as a killed process would."""
    files.stop_after = len(CONTENT) // 3
    monkeypatch.setattr("moestro.model.transfer.ATTEMPTS", 0)
    with pytest.raises(DownloadError, match=r"stopped in the middle|broke"):
        transfer(f"{files.url}/big.bin", target, pause_seconds=0)
    monkeypatch.undo()
    files.stop_after = None


def test_what_is_here_is_not_fetched_again(
    files: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "big.bin"
    interrupted(files, target, monkeypatch)
    assert (tmp_path / "big.bin.part").stat().st_size == len(CONTENT) // 3
    transfer(f"{files.url}/big.bin", target)
    assert target.read_bytes() == CONTENT
    assert files.bytes_sent == len(CONTENT)


def test_a_file_that_changed_meanwhile_begins_anew(
    files: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "big.bin"
    interrupted(files, target, monkeypatch)
    other = CONTENT[::-1]
    (files.root / "big.bin").write_bytes(other)
    transfer(f"{files.url}/big.bin", target)
    assert target.read_bytes() == other


def test_a_file_that_became_shorter_begins_anew(
    files: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "big.bin"
    interrupted(files, target, monkeypatch)
    (files.root / "big.bin").write_bytes(b"short")
    transfer(f"{files.url}/big.bin", target)
    assert target.read_bytes() == b"short"


@pytest.mark.parametrize("option", [{"ranges": False}, {"tag": False}])
def test_servers_that_cannot_continue_send_all_again(
    files: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: dict[str, bool]
) -> None:
    for name, value in option.items():
        setattr(files, name, value)
    target = tmp_path / "big.bin"
    interrupted(files, target, monkeypatch)
    transfer(f"{files.url}/big.bin", target)
    assert target.read_bytes() == CONTENT


def test_breaks_are_survived_while_something_arrives(files: Served, tmp_path: Path) -> None:
    files.stop_after = len(CONTENT) // 8
    transfer(f"{files.url}/big.bin", tmp_path / "big.bin", pause_seconds=0)
    assert (tmp_path / "big.bin").read_bytes() == CONTENT


def test_a_server_that_sends_nothing_is_given_up(files: Served, tmp_path: Path) -> None:
    files.stop_after = 0
    with pytest.raises(DownloadError):
        transfer(f"{files.url}/big.bin", tmp_path / "big.bin", pause_seconds=0)


def test_a_wrong_hash_is_thrown_away(files: Served, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="arrived damaged"):
        transfer(f"{files.url}/big.bin", tmp_path / "big.bin", sha256="0" * 64)
    assert list(tmp_path.glob("big.bin*")) == []


def test_a_second_download_of_the_same_file_is_refused(files: Served, tmp_path: Path) -> None:
    with (
        _locked(tmp_path / "big.bin.part", "http://x/big.bin"),
        pytest.raises(DownloadError, match="Another process"),
    ):
        transfer(f"{files.url}/big.bin", tmp_path / "big.bin")


def test_a_folder_that_cannot_be_made(files: Served, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    with pytest.raises(DownloadError, match="cannot be written"):
        transfer(f"{files.url}/big.bin", tmp_path / "file" / "big.bin")


def test_fetch_of_an_address(files: Served) -> None:
    write_tiny("qwen3moe", files.root, filename="m.gguf")
    path = fetch(Url(f"{files.url}/m.gguf?download=1"))
    assert path.is_relative_to(cache_folder())
    assert path.name == "m.gguf"
    assert read_model(path).architecture == "qwen3moe"
    sent = files.bytes_sent
    assert fetch(Url(f"{files.url}/m.gguf?download=1")) == path
    assert files.bytes_sent <= sent + 1  # one byte, to see that it has not changed


def test_fetch_of_a_split_address_brings_all_parts(files: Served) -> None:
    write_split(TINY["qwen3moe"](), files.root, "tiny", 3)
    path = fetch(Url(f"{files.url}/tiny-00002-of-00003.gguf"))
    assert path.name == "tiny-00001-of-00003.gguf"
    assert len(read_model(path).files) == 3


def test_a_cached_file_serves_without_the_network(files: Served) -> None:
    write_tiny("qwen3moe", files.root, filename="m.gguf")
    path = fetch(Url(f"{files.url}/m.gguf"))
    files.status = 503
    assert fetch(Url(f"{files.url}/m.gguf")) == path


def test_fetch_of_nothing(files: Served) -> None:
    with pytest.raises(ModelNotFound, match="404"):
        fetch(Url(f"{files.url}/absent.gguf"))


def test_no_room(files: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DownloadError, match="free"):
        fetch(Url(f"{files.url}/big.bin"))
    assert files.bytes_sent <= 1
