"""`hf:` references against a small hub on loopback."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from moestro.errors import DownloadError, ModelNotFound, ModelUnsupported
from moestro.model import HubRef, read_model
from moestro.model.download import fetch
from tests.model.servers import Served, serving
from tests.shapes import write_split
from tests.tiny_models import TINY, write_tiny

REPOSITORY = "owner/Tiny-GGUF"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    folder = tmp_path / "hub" / REPOSITORY
    folder.mkdir(parents=True)
    write_tiny("qwen3moe", folder, filename="Tiny-Q4_K_M.gguf")
    write_tiny("qwen3moe", folder, filename="Tiny-Q8_0.gguf", seed=1)
    write_split(TINY["mixtral"](), folder, "Tiny-BF16", 2)
    (folder / "mmproj-Tiny-F16.gguf").write_bytes(b"GGUF")
    (folder / "README.md").write_text("a model", encoding="utf-8")
    with serving(tmp_path / "hub") as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield served


def test_inspection_reads_the_header_over_the_network(hub: Served) -> None:
    spec = read_model(HubRef(REPOSITORY, "q8_0"))
    assert spec.architecture == "qwen3moe"
    assert spec.files[0].location == f"{hub.url}/{REPOSITORY}/resolve/main/Tiny-Q8_0.gguf"
    assert spec.projector is not None
    assert spec.projector.location is not None
    assert spec.projector.location.endswith("mmproj-Tiny-F16.gguf")
    assert spec.findings == ()


def test_without_a_quantization_the_choice_is_told(hub: Served) -> None:
    spec = read_model(HubRef(REPOSITORY))
    assert [(finding.code, finding.title) for finding in spec.findings] == [
        ("file-chosen", "Tiny-Q4_K_M.gguf was chosen")
    ]


def test_split_models_too(hub: Served) -> None:
    spec = read_model(HubRef(REPOSITORY, "BF16"))
    assert len(spec.files) == 2
    assert spec.parameters == TINY["mixtral"]().parameters


def test_what_there_is_not(hub: Served) -> None:
    with pytest.raises(ModelNotFound, match="has no Q2_K") as caught:
        read_model(HubRef(REPOSITORY, "Q2_K"))
    assert caught.value.hint == "It has: BF16, Q4_K_M, Q8_0."
    with pytest.raises(ModelNotFound, match="no owner/absent that you can see"):
        read_model(HubRef("owner/absent"))


@pytest.mark.parametrize(
    ("files", "task", "words"),
    [
        (["model_index.json", "unet/x.safetensors"], None, "image or video"),
        (["split_files/diffusion_models/anima.safetensors"], None, "image or video"),
        (["sulphur-2.safetensors"], "text-to-video", "a video model"),
        (["model.safetensors", "config.json"], "text-generation", "safetensors files, but no"),
    ],
)
def test_other_kinds_of_repositories(
    hub: Served, files: list[str], task: str | None, words: str
) -> None:
    hub.task = task
    for name in files:
        path = hub.root / "owner/other" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    with pytest.raises(ModelUnsupported, match=words):
        read_model(HubRef("owner/other"))


def test_a_repository_without_any_model(hub: Served) -> None:
    (hub.root / "owner/empty").mkdir()
    with pytest.raises(ModelNotFound, match="no GGUF"):
        read_model(HubRef("owner/empty"))


def test_gone_hub(hub: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match="cannot be reached"):
        read_model(HubRef(REPOSITORY))
    with pytest.raises(DownloadError, match="cannot be reached"):
        fetch(HubRef(REPOSITORY))


def test_the_token_opens_private_repositories(hub: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.token = "hf_secret"
    with pytest.raises(ModelNotFound, match="that you can see"):
        read_model(HubRef(REPOSITORY))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert read_model(HubRef(REPOSITORY)).architecture == "qwen3moe"
    assert fetch(HubRef(REPOSITORY)).is_file()


def test_fetch_downloads_once_and_into_the_hubs_own_cache(hub: Served, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = fetch(HubRef(REPOSITORY, "Q8_0"), lambda here, total: seen.append((here, total)))
    original = hub.root / REPOSITORY / "Tiny-Q8_0.gguf"
    size = original.stat().st_size
    assert path.read_bytes() == original.read_bytes()
    assert path.is_relative_to(tmp_path / "cache" / "models--owner--Tiny-GGUF" / "snapshots")
    assert path.name == "Tiny-Q8_0.gguf"
    assert seen[-1] == (size, size)
    assert hub.bytes_sent == size

    assert fetch(HubRef(REPOSITORY, "Q8_0")) == path
    assert hub.bytes_sent == size  # nothing was sent again
    assert read_model(HubRef(REPOSITORY, "Q8_0")).files[0].location == str(path)
    assert hub.bytes_sent == size  # and inspection uses what is here


def test_fetch_brings_all_parts_into_one_folder(hub: Served) -> None:
    first = fetch(HubRef(REPOSITORY, "BF16"))
    assert first.name == "Tiny-BF16-00001-of-00002.gguf"
    assert len(read_model(first).files) == 2


def test_fetch_without_network_uses_the_cache(hub: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fetch(HubRef(REPOSITORY))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert fetch(HubRef(REPOSITORY)) == path
    assert read_model(HubRef(REPOSITORY)).architecture == "qwen3moe"


def test_an_interrupted_fetch_continues(hub: Served) -> None:
    size = (hub.root / REPOSITORY / "Tiny-Q4_K_M.gguf").stat().st_size
    hub.stop_after = size // 3
    path = fetch(HubRef(REPOSITORY))
    assert path.stat().st_size == size
    assert hub.bytes_sent == size
    gets = [asked for method, _, asked in hub.requests if method == "GET" and asked]
    assert len(gets) >= 2
    assert all(asked.endswith("-") for asked in gets)


def test_a_damaged_file_is_thrown_away(hub: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.model.servers.tag_of", lambda file: "0" * 64)
    with pytest.raises(DownloadError, match="arrived damaged"):
        fetch(HubRef(REPOSITORY))
    monkeypatch.undo()


def test_a_full_disk_is_noticed_before(hub: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DownloadError, match="1000 B free"):
        fetch(HubRef(REPOSITORY))
    assert hub.bytes_sent == 0
