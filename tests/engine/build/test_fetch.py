"""The source from a repository: here one on this disk, and an archive from a server on loopback."""

from __future__ import annotations

import http.server
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from moestro.engine.build import fetch as fetching
from moestro.engine.build.fetch import PINNED, Pinned, fetch
from moestro.engine.build.source import identify
from moestro.engine.llama_cpp.version import EXPECTED_VERSION
from moestro.errors import DownloadError
from tests.engine.build.workshop import write_source


def test_llama_cpp_is_the_release_of_the_embedded_engine() -> None:
    assert PINNED["llama.cpp"].ref == f"b{EXPECTED_VERSION.split('.')[-1]}"
    assert len(PINNED["ik_llama.cpp"].ref) == 40
    assert all(pinned.archive.startswith("https://") for pinned in PINNED.values())


@pytest.fixture
def repository(tmp_path: Path) -> Pinned:
    folder = write_source(tmp_path / "origin")
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    for words in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "1"), ("tag", "b7")):
        subprocess.run(["git", *who, "-C", str(folder), *words], check=True)
    return Pinned("llama.cpp", folder.as_uri(), "b7")


def test_one_commit_arrives_without_its_history(repository: Pinned, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    commit = fetch(repository, target)
    assert commit is not None
    assert len(commit) == 40
    assert identify(target).family == "llama.cpp"
    assert not (target / ".git").exists()


def test_a_release_that_is_not_there(repository: Pinned, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(DownloadError, match=r"llama\.cpp b8 could not be fetched") as caught:
        fetch(replace(repository, ref="b8"), target)
    assert "--source" in (caught.value.hint or "")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A repository's address as its archives have it; `b9` is there."""
    write_source(tmp_path / "llama.cpp-b9")
    folder = tmp_path / "served" / "archive"
    folder.mkdir(parents=True)
    with tarfile.open(folder / "b9.tar.gz", "w:gz") as file:
        file.add(tmp_path / "llama.cpp-b9", "llama.cpp-b9")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(folder.parent))  # type: ignore[arg-type]

        def log_message(self, *words: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Quiet) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


@pytest.fixture
def without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("without_git")
def test_without_git_the_archive_is_fetched(server: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    seen: list[int] = []
    assert fetch(Pinned("llama.cpp", server, "b9"), target, seen.append) is None
    assert identify(target).version == "b9"
    assert seen
    assert not (target / "source.tar.gz").exists()


@pytest.mark.usefixtures("without_git")
def test_an_archive_without_end_is_left(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_MOST_BYTES", 100)
    with pytest.raises(DownloadError, match="larger than any source"):
        fetch(Pinned("llama.cpp", server, "b9"), tmp_path)


@pytest.mark.usefixtures("without_git")
@pytest.mark.parametrize(
    ("address", "why"), [("", "the server answered 404"), ("http://127.0.0.1:9", "refused")]
)
def test_why_it_did_not_arrive(server: str, tmp_path: Path, address: str, why: str) -> None:
    with pytest.raises(DownloadError, match=why):
        fetch(Pinned("llama.cpp", address or server, "b10"), tmp_path)
