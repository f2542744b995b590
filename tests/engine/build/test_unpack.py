"""Archives are other people's: nothing leaves the folder, and nothing grows without end."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from moestro.engine.build import unpack as unpacking
from moestro.engine.build.unpack import unpack
from moestro.errors import EngineError


def archive(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for member in members:
            file.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def regular(name: str, size: int = 3) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def test_files_arrive_and_links_do_not(tmp_path: Path) -> None:
    link = tarfile.TarInfo("source/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    target = tmp_path / "out"
    target.mkdir()
    unpack(archive(tmp_path / "a.tar.gz", regular("source/a.c"), link), target)
    assert (target / "source" / "a.c").read_bytes() == b"xxx"
    assert not (target / "source" / "link").is_symlink()


@pytest.mark.parametrize("name", ["../outside.c", "source/../../outside.c"])
def test_nothing_leaves_the_folder(tmp_path: Path, name: str) -> None:
    target = tmp_path / "out"
    target.mkdir()
    with pytest.raises(EngineError, match="not a sound"):
        unpack(archive(tmp_path / "a.tar.gz", regular(name)), target)
    assert not (tmp_path / "outside.c").exists()


def test_too_much_is_refused_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "_MOST_BYTES", 1000)
    target = tmp_path / "out"
    target.mkdir()
    with pytest.raises(EngineError, match="more than the source"):
        unpack(archive(tmp_path / "a.tar.gz", regular("a", 10), regular("b", 2000)), target)
    assert not (target / "b").exists()


@pytest.mark.parametrize("cut", [0, 20, 60])
def test_a_damaged_archive_is_one_sentence(tmp_path: Path, cut: int) -> None:
    path = archive(tmp_path / "a.tar.gz", regular("a", 5000))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(EngineError):
        unpack(path, tmp_path)


def test_a_missing_archive_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="does not exist"):
        unpack(tmp_path / "none.tar.gz", tmp_path)
