"""What can be told of files without knowing what should be in them."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from moestro.demo import model_path
from moestro.errors import ModelError, ModelNotFound
from moestro.model import Role, completeness, read_model
from moestro.model.completeness import Progress, _lost_bytes, known_sha256, look_at_files
from moestro.units import MIB
from tests.model.test_hugging_face import folder_of
from tests.shapes import PUBLISHED, write_header, write_split
from tests.shapes.families import qwen3moe
from tests.tiny_models import write_tiny

DIGEST = "0123456789abcdef" * 4


def test_a_whole_file_of_unknown_origin() -> None:
    (state,) = look_at_files(read_model(model_path()), hash_up_to_bytes=1 << 40).files
    assert state.size_bytes == model_path().stat().st_size
    assert (state.hole_bytes, state.trailing_bytes) == (0, 0)
    assert (state.known_sha256, state.found_sha256) == (None, None)


def test_a_header_without_weights_is_all_holes(tmp_path: Path) -> None:
    spec = read_model(write_header(PUBLISHED["DeepSeek-V3"](), tmp_path / "v3.gguf",
                                   vocab_tokens=300))  # fmt: skip
    (state,) = look_at_files(spec, hash_up_to_bytes=0).files
    assert state.hole_bytes is not None
    assert 0.99 * spec.tensor_bytes < state.hole_bytes <= spec.tensor_bytes


def test_what_follows_the_last_tensor(tmp_path: Path) -> None:
    path = write_tiny("llama", tmp_path)
    with path.open("ab") as file:
        file.write(b"x" * 1000)
    (state,) = look_at_files(read_model(path), hash_up_to_bytes=0).files
    assert state.trailing_bytes == 1000


def test_every_part_is_looked_at(tmp_path: Path) -> None:
    shape = qwen3moe(layers=2, hidden=256, heads=4, kv_heads=2, head_dim=64, ffn=256,
                     expert_ffn=256, experts=8, used=2, vocab=512)  # fmt: skip
    paths = write_split(shape, tmp_path, "model", 3)
    found = look_at_files(read_model(paths[1]), hash_up_to_bytes=0)
    assert [state.path for state in found.files] == paths


def test_a_hugging_face_folder(tmp_path: Path) -> None:
    states = look_at_files(read_model(folder_of("llama", tmp_path, shards=2)), hash_up_to_bytes=0)
    assert [state.hole_bytes for state in states.files] == [0, 0]  # all of them are small


def test_a_hash_is_computed_within_its_budget(tmp_path: Path) -> None:
    path = write_tiny("llama", tmp_path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / f"{path.name}.sha256").write_text(digest.upper() + "\n")
    spec = read_model(path)
    size = path.stat().st_size
    (state,) = look_at_files(spec, hash_up_to_bytes=size - 1).files
    assert (state.known_sha256, state.found_sha256) == (digest, None)
    done: list[int] = []
    (state,) = look_at_files(spec, hash_up_to_bytes=size, progress=done.append).files
    assert state.known_sha256 == state.found_sha256 == digest
    assert done[-1] == size


def published(folder: Path, count: int = 1) -> list[Path]:
    """Parts of a model with their sums beside them."""
    shape = qwen3moe(layers=2, hidden=256, heads=4, kv_heads=2, head_dim=64, ffn=256,
                     expert_ffn=256, experts=8, used=2, vocab=512)  # fmt: skip
    paths = write_split(shape, folder, "model", count)
    for path in paths:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        path.with_name(f"{path.name}.sha256").write_text(digest)
    return paths


def test_hashing_stops_when_its_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = published(tmp_path, 3)
    spec = read_model(paths[0])
    state = look_at_files(spec, hash_up_to_bytes=1 << 40, hash_up_to_seconds=-1.0)
    assert [file.found_sha256 for file in state.files] == [None] * 3
    clock = iter([0.0, *[1.0] * 2, *[4.0] * 99])  # begun; the first two pieces; much later
    monkeypatch.setattr(completeness.time, "monotonic", lambda: next(clock))
    state = look_at_files(spec, hash_up_to_bytes=1 << 40, hash_up_to_seconds=3.0)
    known = [file.known_sha256 for file in state.files]
    assert [file.found_sha256 for file in state.files] == [*known[:2], None]


class Enough(OSError):
    """Even one that looks like a disk's."""


@pytest.mark.parametrize("at", [1, 2], ids=["before hashing", "while hashing"])
def test_what_progress_raises_reaches_the_caller(at: int, tmp_path: Path) -> None:
    spec, calls = read_model(published(tmp_path)[0]), []

    def progress(done_bytes: int) -> None:
        calls.append(done_bytes)
        if len(calls) == at:
            raise Enough

    with pytest.raises(Enough):
        look_at_files(spec, hash_up_to_bytes=1 << 40, progress=progress)


def test_a_file_that_changes_while_it_is_hashed_is_an_error(tmp_path: Path) -> None:
    (path,) = published(tmp_path)

    def progress(done_bytes: int) -> None:
        if done_bytes:
            with path.open("ab") as file:
                file.write(b"more")

    # Ends: a piece is larger than the file, and its end is found before it grows again.
    with pytest.raises(ModelError, match="changed while it was read"):
        look_at_files(read_model(path), hash_up_to_bytes=1 << 40, progress=once(progress))


def once(call: Progress) -> Progress:
    done: list[int] = []

    def progress(done_bytes: int) -> None:
        if done_bytes and not done:
            done.append(done_bytes)
            call(done_bytes)

    return progress


def test_progress_counts_all_files(tmp_path: Path) -> None:
    paths, done = published(tmp_path, 3), []
    look_at_files(read_model(paths[0]), hash_up_to_bytes=1 << 40, progress=done.append)
    assert done[:3] == [0, 0, 0]
    assert done == sorted(done)
    assert done[-1] == sum(path.stat().st_size for path in paths)


def test_the_hubs_cache_names_files_by_their_hash(tmp_path: Path) -> None:
    blob = tmp_path / "models--a--b" / "blobs" / DIGEST
    blob.parent.mkdir(parents=True)
    blob.touch()
    link = tmp_path / "models--a--b" / "snapshots" / "abc" / "model.gguf"
    link.parent.mkdir(parents=True)
    link.symlink_to(blob)
    assert known_sha256(link) == (DIGEST, "the hub's cache")
    small = blob.with_name("a" * 40)  # a file that git itself keeps
    small.touch()
    assert known_sha256(small) == (None, None)


def test_ollamas_store(tmp_path: Path) -> None:
    blob = tmp_path / "blobs" / f"sha256-{DIGEST}"
    blob.parent.mkdir()
    blob.touch()
    assert known_sha256(blob) == (DIGEST, "Ollama's store")


@pytest.mark.parametrize("inner", ["", "BF16/"])
def test_notes_of_a_download(tmp_path: Path, inner: str) -> None:
    path = tmp_path / inner / "model.gguf"
    notes = tmp_path / ".cache" / "huggingface" / "download" / f"{inner}model.gguf.metadata"
    notes.parent.mkdir(parents=True)
    path.parent.mkdir(exist_ok=True)
    path.touch()
    notes.write_text(f"{'c' * 40}\n{DIGEST}\n1700000000.0\n")
    assert known_sha256(path) == (DIGEST, "the notes of the download")
    notes.write_text(f"{'c' * 40}\n{'d' * 40}\n1700000000.0\n")
    assert known_sha256(path) == (None, None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SHA256SUMS", f"{'f' * 64}  other.gguf\n{DIGEST}  model.gguf\n"),
        ("sha256sums.txt", f"{DIGEST} *./model.gguf"),
        ("model.gguf.sha256", f"{DIGEST}  somewhere/model.gguf"),
    ],
)
def test_lists_of_sums(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert known_sha256(tmp_path / "model.gguf") == (DIGEST, name)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe\0" * 99, b"not a sum", b"a" * 63, b"\n" * 9999])
def test_nonsense_in_their_place(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "SHA256SUMS").write_bytes(data)
    (tmp_path / "model.gguf.sha256").write_bytes(data)
    notes = tmp_path / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    (notes / "model.gguf.metadata").write_bytes(data)
    assert known_sha256(tmp_path / "model.gguf") == (None, None)


def test_folders_in_their_place(tmp_path: Path) -> None:
    (tmp_path / "SHA256SUMS").mkdir()
    os.mkfifo(tmp_path / "model.gguf.sha256")  # to read it would wait for ever
    assert known_sha256(tmp_path / "model.gguf") == (None, None)


def test_a_file_that_is_gone_is_an_error(tmp_path: Path) -> None:
    path = write_tiny("llama", tmp_path)
    spec = read_model(path)
    path.unlink()
    with pytest.raises(ModelNotFound):
        look_at_files(spec, hash_up_to_bytes=0)


def test_a_file_that_became_something_else_is_an_error(tmp_path: Path) -> None:
    path = write_tiny("llama", tmp_path)
    spec = read_model(path)
    path.write_text("something else")
    with pytest.raises(ModelError):
        look_at_files(spec, hash_up_to_bytes=0)


def test_holes_that_zeros_explain_do_not_count() -> None:
    expert, table = Role.ROUTED_EXPERTS, Role.EMBEDDING
    holes = [(10 * MIB, 12 * MIB), (30 * MIB, 40 * MIB)]
    assert _lost_bytes(holes, [(0, 10 * MIB, expert)]) == 0
    assert _lost_bytes(holes, [(11 * MIB, 4 * MIB, expert)]) == MIB
    assert _lost_bytes(holes, [(0, 100 * MIB, expert)]) == 12 * MIB
    assert _lost_bytes(holes, [(0, 100 * MIB, table)]) == 0  # its last rows fill it up
    assert _lost_bytes(holes, [(20 * MIB, 20 * MIB, table)]) == 10 * MIB
    assert _lost_bytes(holes, [(35 * MIB, MIB, expert), (36 * MIB, MIB, None)]) == 2 * MIB
    assert _lost_bytes([], [(0, MIB, expert)]) == 0


def test_small_holes_do_not_count(tmp_path: Path) -> None:
    """Copies made sparse leave out every block of zeros, and matrices have rows of them."""
    data = bytearray(model_path().read_bytes())
    path = tmp_path / "sparse.gguf"
    with path.open("wb") as file:
        file.write(data[: 16 * MIB])
        file.seek(16 * MIB + 64 * 1024)
        file.write(data[16 * MIB + 64 * 1024 :])
    spec = read_model(path)
    (state,) = look_at_files(spec, hash_up_to_bytes=0).files
    assert state.hole_bytes == 0
    assert replace(state, path=model_path()).size_bytes == model_path().stat().st_size
