"""Headers over HTTP: only header bytes travel, whatever the server does."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from moestro.errors import (
    DownloadError,
    ModelNotFound,
    ModelPartMissing,
    ModelTruncated,
    NotAModel,
)
from moestro.model import Url, parse_reference, read_model
from moestro.model.remote import HttpSource, read_remote
from tests.model import crafted
from tests.model.servers import serving
from tests.shapes import write_header, write_split
from tests.shapes.published import deepseek_v3, qwen36_35b_a3b
from tests.tiny_models import TINY

SLACK_BYTES = 2 << 20  # one chunk beyond the header, at most


def header_bytes(path: Path) -> int:
    """How much of a sparse header-only file is real."""
    return path.stat().st_blocks * 512


def test_a_large_model_costs_its_header(tmp_path: Path) -> None:
    path = write_header(deepseek_v3(), tmp_path / "v3.gguf")
    here = read_model(path)
    with serving(tmp_path) as served:
        there = read_model(parse_reference(f"{served.url}/v3.gguf"))
    assert there.tensor_bytes == here.tensor_bytes
    assert there.parameters == here.parameters
    assert there.files[0].size_bytes == path.stat().st_size
    assert served.bytes_sent < header_bytes(path) + SLACK_BYTES
    assert served.bytes_sent == there.transferred_bytes


def test_a_long_token_list_is_fetched_in_few_requests(tmp_path: Path) -> None:
    path = write_header(qwen36_35b_a3b(), tmp_path / "m.gguf")
    with serving(tmp_path) as served:
        spec = read_remote(f"{served.url}/m.gguf")
    assert spec.vocabulary == 248_320
    assert served.bytes_sent < header_bytes(path) + (256 << 10)
    assert len(served.requests) <= 12


def test_a_server_without_ranges_is_left_after_the_header(tmp_path: Path) -> None:
    path = write_header(deepseek_v3(), tmp_path / "v3.gguf")
    with serving(tmp_path, ranges=False) as served:
        spec = read_remote(f"{served.url}/v3.gguf")
        assert spec.parameters == deepseek_v3().parameters
        assert spec.transferred_bytes < header_bytes(path) + SLACK_BYTES
    # What the sockets' buffers took is sent, and no more of the 386 GiB.
    assert served.bytes_sent < header_bytes(path) + (16 << 20)
    assert len(served.requests) == 1


def test_redirects_are_followed_and_tokens_are_not(tmp_path: Path) -> None:
    write_header(TINY["qwen3moe"](), tmp_path / "m.gguf")
    with serving(tmp_path) as storage, serving(tmp_path, redirect_to=storage.url) as front:
        source = HttpSource(f"{front.url}/m.gguf", token="secret")
        assert source.read_at(0, 4) == b"GGUF"
        source.close()
    assert front.authorizations == ["Bearer secret"]
    assert storage.authorizations == [None]


def test_split_models_are_read_from_their_sisters(tmp_path: Path) -> None:
    parts = write_split(TINY["qwen3moe"](), tmp_path, "tiny", 3)
    with serving(tmp_path) as served:
        spec = read_remote(f"{served.url}/tiny-00002-of-00003.gguf?download=true")
        assert spec.parameters == TINY["qwen3moe"]().parameters
        assert len(spec.files) == 3
        parts[2].unlink()
        with pytest.raises(ModelPartMissing, match="tiny-00003-of-00003"):
            read_remote(f"{served.url}/tiny-00001-of-00003.gguf")


def test_remote_files_can_be_wrong_too(tmp_path: Path) -> None:
    crafted.write(tmp_path / "cut.gguf", crafted.good()[:-100])
    crafted.write(tmp_path / "page.gguf", b"<!DOCTYPE html><p>Sign in")
    with serving(tmp_path) as served:
        with pytest.raises(ModelTruncated, match="cut off"):
            read_remote(f"{served.url}/cut.gguf")
        with pytest.raises(NotAModel, match="web page"):
            read_remote(f"{served.url}/page.gguf")
        with pytest.raises(ModelNotFound, match="HTTP 404"):
            read_remote(f"{served.url}/absent.gguf")


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (404, ModelNotFound, "404"),
        (403, DownloadError, "does not let you"),
        (401, DownloadError, "does not let you"),
        (429, DownloadError, "slow down"),
        (500, DownloadError, "trouble of its own"),
        (418, DownloadError, "refused"),
    ],
)
def test_statuses(tmp_path: Path, status: int, kind: type[Exception], words: str) -> None:
    with serving(tmp_path, status=status) as served, pytest.raises(kind, match=words):
        read_remote(f"{served.url}/m.gguf")


def test_a_server_that_answers_with_another_part(tmp_path: Path) -> None:
    crafted.write(tmp_path / "m.gguf", crafted.good())
    with (
        serving(tmp_path, lie_about_start=64) as served,
        pytest.raises(DownloadError, match="another part"),
    ):
        read_remote(f"{served.url}/m.gguf")


def test_a_silent_server_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    with serving(tmp_path, silent=threading.Event()) as served:
        source = HttpSource(f"{served.url}/m.gguf", timeout_seconds=0.2)
        with pytest.raises(DownloadError, match="did not answer"):
            source.read_at(0, 4)


def test_a_connection_that_breaks(tmp_path: Path) -> None:
    write_header(qwen36_35b_a3b(), tmp_path / "m.gguf")
    with serving(tmp_path, stop_after=1000) as served, pytest.raises(DownloadError, match="broke"):
        read_remote(f"{served.url}/m.gguf")


def test_nobody_listens() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        with pytest.raises(DownloadError, match="refused the connection"):
            read_model(Url(f"http://127.0.0.1:{port}/m.gguf"))


def test_no_such_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DownloadError, match=r"No server called nowhere\.invalid"):
        read_model(Url("http://nowhere.invalid/m.gguf"))
