"""Models in huggingface-hub's cache and in moestro's own, as both lay them out."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest

from moestro.cli.main import main
from moestro.errors import ModelError
from moestro.model.downloaded import downloaded, find, remove


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("MOESTRO_CACHE", str(tmp_path / "own"))
    return tmp_path


def from_hub(
    caches: Path, repository: str, name: str, content: bytes, snapshot: str = "abc"
) -> Path:
    folder = caches / "hub" / f"models--{repository.replace('/', '--')}"
    blob = folder / "blobs" / f"sha-{content[:8].hex()}-{len(content)}"
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    link = folder / "snapshots" / snapshot / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(blob)
    return blob


def own(caches: Path, name: str, content: bytes) -> Path:
    path = caches / "own" / "models" / "0123456789abcdef" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_without_any(caches: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert downloaded() == []
    assert main(["models", "list"]) == 0
    assert "No model was downloaded" in capsys.readouterr().out


def test_what_is_here_by_size(caches: Path) -> None:
    from_hub(caches, "owner/repo", "big-Q4_K_M.gguf", b"a" * 500)
    for part in (1, 2):
        from_hub(caches, "owner/repo", f"Q8/huge-Q8_0-0000{part}-of-00002.gguf", b"%d" % part * 900)
    from_hub(caches, "owner/repo", "README.md", b"no model")
    own(caches, "small.gguf", b"x" * 10)
    own(caches, "begun.gguf.part", b"x" * 20)
    own(caches, "begun.gguf.part.json", b"{}")
    assert [(one.name, one.size_bytes, len(one.paths), one.whole) for one in downloaded()] == [
        ("owner/repo/Q8/huge-Q8_0", 1800, 2, True),
        ("owner/repo/big-Q4_K_M", 500, 1, True),
        ("0123456789abcdef/begun (unfinished)", 22, 2, False),
        ("0123456789abcdef/small", 10, 1, True),
    ]


def test_a_file_of_two_snapshots_is_counted_once_and_goes_from_both(caches: Path) -> None:
    blob = from_hub(caches, "owner/repo", "m.gguf", b"a" * 500, "one")
    from_hub(caches, "owner/repo", "m.gguf", b"a" * 500, "two")
    (model,) = downloaded()
    assert (model.size_bytes, len(model.paths)) == (500, 2)
    assert remove(model) == 500
    assert not blob.exists()
    assert downloaded() == []


def test_a_blob_that_something_else_links_to_stays(caches: Path) -> None:
    blob = from_hub(caches, "owner/repo", "m.gguf", b"a" * 500)
    from_hub(caches, "owner/repo", "copy.gguf", b"a" * 500)
    assert remove(find("m")) == 0
    assert blob.exists()
    assert remove(find("owner/repo/copy")) == 500


def test_names_that_are_not_one_model(caches: Path) -> None:
    from_hub(caches, "a/x", "m.gguf", b"a")
    from_hub(caches, "b/x", "m.gguf", b"b")
    with pytest.raises(ModelError, match="may mean 2 models"):
        find("m")
    with pytest.raises(ModelError, match="No downloaded model"):
        find("n")
    assert find("a/x/m").name == "a/x/m"


def test_the_verb(caches: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = own(caches, "small.gguf", b"x" * 2048)
    assert main(["models", "list"]) == 0
    assert "2.00 KiB" in capsys.readouterr().out
    assert main(["models", "remove", "small"]) == 2
    assert "Say --yes." in capsys.readouterr().err
    assert main(["models", "remove", "small", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["freed_bytes"] == 2048
    assert not path.exists()
    assert main(["models", "remove", "small", "--yes"]) == 1
    assert "No downloaded model" in capsys.readouterr().err


def test_a_folder_that_may_not_be_written(
    caches: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own(caches, "small.gguf", b"x")

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    assert main(["models", "remove", "small", "--yes"]) == 1
    assert "cannot be deleted: Permission denied" in capsys.readouterr().err


def test_a_download_in_progress_is_left_alone(caches: Path) -> None:
    part = own(caches, "begun.gguf.part", b"x" * 20)
    model = find("0123456789abcdef/begun (unfinished)")
    with part.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ModelError, match="begun is being downloaded"):
            remove(model)
    assert part.exists()
    assert remove(model) == 20
    assert not part.exists()
