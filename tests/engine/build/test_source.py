"""Which engine's source it is, of which version, and what is taken of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from moestro.engine.build.source import (
    copy_source,
    identify,
    parse_architectures,
    tree_hash,
    write_build_info,
)
from moestro.engine.registry import LOAD_MODE, MTP, NGRAM, REPACK, UNIFIED, Family
from moestro.errors import EngineError
from tests.engine.build.workshop import ARCHITECTURES, write_distribution, write_source

BOTH: list[Family] = ["llama.cpp", "ik_llama.cpp"]


@pytest.mark.parametrize("family", BOTH)
def test_a_distribution_says_family_and_version(tmp_path: Path, family: Family) -> None:
    source = identify(write_distribution(tmp_path / "sdist", family))
    assert source.family == family
    assert source.version == ("b11549" if family == "llama.cpp" else "0.1.5")
    assert source.commit is None
    assert source.folder.name == family


def test_an_archives_outer_folder_is_looked_into(tmp_path: Path) -> None:
    write_distribution(tmp_path / "unpacked" / "xllamacpp-2026.10.11549")
    assert identify(tmp_path / "unpacked").version == "b11549"


def test_without_a_version_the_files_name_it(tmp_path: Path) -> None:
    source = identify(write_source(tmp_path / "somewhere"))
    assert source.version == f"src-{source.hash[:8]}"


def test_an_archive_at_a_commit_is_named_after_it(tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    source = identify(write_source(tmp_path / f"ik_llama.cpp-{commit}", "ik_llama.cpp"))
    assert (source.version, source.commit) == ("01234567", commit)


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", *who, "-C", str(folder), *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_checkout_says_its_release_or_commit_and_whether_it_was_changed(tmp_path: Path) -> None:
    folder = write_source(tmp_path / "checkout")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "one")
    commit = git(folder, "rev-parse", "HEAD")
    assert (identify(folder).version, identify(folder).commit) == ("b1", commit)
    git(folder, "tag", "b777")
    assert identify(folder).version == "b777"
    (folder / "ggml/src/ggml.c").write_text("int y;\n")
    assert identify(folder).version == "b777-dirty"


def test_a_repository_around_it_is_not_asked(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "another project")
    assert identify(write_source(tmp_path / "llama.cpp-b5")).version == "b5"


def test_another_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text("project(other)")
    with pytest.raises(EngineError, match=r"neither llama\.cpp's source nor ik_llama\.cpp's"):
        identify(tmp_path)


def test_architectures_are_those_that_models_name() -> None:
    assert parse_architectures(ARCHITECTURES) == {"llama", "qwen3moe"}
    assert parse_architectures("no table") == frozenset()


def test_features_are_read_from_the_options(tmp_path: Path) -> None:
    llama = identify(write_source(tmp_path / "a"))
    assert llama.features == {MTP, NGRAM, UNIFIED, REPACK, LOAD_MODE}
    assert identify(write_source(tmp_path / "b", "ik_llama.cpp")).features == {REPACK}


def test_a_copy_has_what_is_compiled_and_nothing_else(tmp_path: Path) -> None:
    source = identify(write_source(tmp_path / "a"))
    (source.folder / ".git").mkdir()
    (source.folder / ".git" / "config").write_text("")
    (source.folder / "build-old").mkdir()
    (source.folder / "build-old" / "a.o").write_text("")
    os.symlink("/etc/passwd", source.folder / "src" / "link.cpp")
    copy_source(source, tmp_path / "copy")
    names = {str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*")}
    assert "src/llama-arch.cpp" in names
    assert not any(name.startswith((".git", "models", "build-old")) for name in names)
    assert "src/link.cpp" not in names
    assert tree_hash(tmp_path / "copy") == source.hash


def test_the_hash_sees_bytes_and_names(tmp_path: Path) -> None:
    folder = write_source(tmp_path / "a")
    before = tree_hash(folder)
    (folder / "ggml/src/ggml.c").write_text("int z;\n")
    changed = tree_hash(folder)
    (folder / "ggml/src/ggml.c").rename(folder / "ggml/src/other.c")
    assert len({before, changed, tree_hash(folder)}) == 3


def test_build_info_is_made_once_and_its_script_does_nothing(tmp_path: Path) -> None:
    folder = write_source(tmp_path / "a", "ik_llama.cpp")
    write_build_info(folder, "0.1.5", None)
    made = folder / "common" / "build-info.cpp"
    assert 'LLAMA_COMMIT = "0.1.5"' in made.read_text()
    assert "LLAMA_BUILD_NUMBER = 0;" in made.read_text()
    script = folder / "common" / "cmake" / "build-info-gen-cpp.cmake"
    assert all(line.startswith("#") for line in script.read_text().splitlines())
    os.utime(made, (1, 1))
    write_build_info(folder, "0.1.5", None)
    assert made.stat().st_mtime == 1  # else everything that includes it would be compiled again


def test_a_strange_template_is_refused(tmp_path: Path) -> None:
    folder = write_source(tmp_path / "a", "ik_llama.cpp")
    (folder / "common" / "build-info.cpp.in").write_text("int x = @BUILD_SOMETHING@;")
    with pytest.raises(EngineError, match="not the template"):
        write_build_info(folder, "1", None)
