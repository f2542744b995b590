from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from moestro.errors import ModelError, ModelNotFound, MoestroError
from moestro.routing.sample import LayerSample, sample
from moestro.verify import container
from moestro.verify.corpus import Chunk
from moestro.verify.npy import read_array, write_array
from moestro.verify.reference_file import ReferenceFile, ReferenceWriter
from moestro.verify.sketch import Sketch, sketch_logits
from tests.verify.test_divergence import random_logits

VOCABULARY, TOKENS, SCORED = 400, 24, 11


def chunk(index: int, vocabulary: int = VOCABULARY) -> Chunk:
    tokens = np.random.default_rng(index).integers(0, vocabulary, TOKENS).astype(np.int32)
    return Chunk(index, "prose" if index % 2 else "Straße", tokens)


def sketch(index: int, vocabulary: int = VOCABULARY) -> Sketch:
    targets = chunk(index, vocabulary).tokens[-SCORED:]
    return sketch_logits(random_logits(SCORED, vocabulary, index), targets, seed=index)


def router(seed: int, experts: int = 16, used: int = 3, tokens: int = TOKENS) -> LayerSample:
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 4, (tokens, experts)).astype(np.float32)
    chosen = np.argsort(-logits, axis=1)[:, :used].astype(np.int32)
    return sample(logits, chosen, generator.random((tokens, used)).astype(np.float32))


def write(path: Path, chunks: int = 3, **header: Any) -> None:
    with ReferenceWriter(path, header) as writer:
        for index in range(chunks):
            routers = {2: router(index), 5: router(index + 9, tokens=SCORED + 1)}
            writer.add_chunk(chunk(index), TOKENS // 2, sketch(index), routers)
        writer.add_arrays(
            "generations", {"tokens": 48}, {"made": np.arange(12, dtype=np.uint32).reshape(3, 4)}
        )
        writer.finish({"seconds": 1.5})


def read_all(path: Path) -> None:
    with ReferenceFile.open(path) as file:
        for _ in file.chunks():
            pass
        for name in file.names:
            file.arrays(name)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.moeref"
    write(path, model="Größe", layers=[2, 5])
    assert [found.name for found in tmp_path.iterdir()] == ["model.moeref"]
    with ReferenceFile.open(path) as file:
        assert file.header == {"model": "Größe", "layers": [2, 5]}
        assert file.extra == {"seconds": 1.5}
        assert file.names == ("generations",)
        assert file.chunk_count == 3
        for _ in range(2):  # it can be read again
            for index, stored in enumerate(file.chunks()):
                wanted = chunk(index)
                assert (stored.chunk.index, stored.chunk.domain) == (index, wanted.domain)
                assert stored.chunk.tokens.dtype == np.int32
                np.testing.assert_array_equal(stored.chunk.tokens, wanted.tokens)
                assert stored.first_scored == TOKENS // 2
                given = sketch(index)
                assert stored.sketch.vocabulary == VOCABULARY
                for name in Sketch.__dataclass_fields__:
                    read, put = getattr(stored.sketch, name), getattr(given, name)
                    np.testing.assert_array_equal(read, put)
                    assert np.asarray(read).dtype == np.asarray(put).dtype
                assert list(stored.routers) == [2, 5]
                same(stored.routers[2], router(index))
                same(stored.routers[5], router(index + 9, tokens=SCORED + 1))
        facts, arrays = file.arrays("generations")
        assert facts == {"tokens": 48}
        assert arrays["made"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
        with pytest.raises(ModelError, match="no part arrays/else"):
            file.arrays("else")


def same(read: LayerSample, put: LayerSample) -> None:
    np.testing.assert_array_equal(read.chosen, put.chosen)
    np.testing.assert_array_equal(read.rows, put.rows)
    np.testing.assert_allclose(read.weights, put.weights, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(read.logits, put.logits, rtol=1e-3, atol=1e-4)


def test_large_vocabularies_many_experts_and_huge_logits_keep_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "wide.moeref"
    vocabulary = 70_000
    given = router(1, experts=300)
    given.logits[0, 0] = 1e6  # beyond float16
    given.logits[1, 0] = np.nan
    with ReferenceWriter(path, {}) as writer:
        writer.add_chunk(chunk(1, vocabulary), 3, sketch(1, vocabulary), {0: given})
        writer.finish({})
    with ReferenceFile.open(path) as file:
        (stored,) = file.chunks()
    np.testing.assert_array_equal(stored.chunk.tokens, chunk(1, vocabulary).tokens)
    np.testing.assert_array_equal(stored.sketch.ids, sketch(1, vocabulary).ids)
    np.testing.assert_array_equal(stored.routers[0].logits, given.logits)
    np.testing.assert_array_equal(stored.routers[0].chosen, given.chosen)


def test_a_dense_model_has_no_routers(tmp_path: Path) -> None:
    path = tmp_path / "dense.moeref"
    with ReferenceWriter(path, {}) as writer:
        writer.add_chunk(chunk(0), 12, sketch(0), {})
        writer.finish({})
    with ReferenceFile.open(path) as file:
        assert [stored.routers for stored in file.chunks()] == [{}]


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "one.moeref")
    write(tmp_path / "two.moeref")
    assert (tmp_path / "one.moeref").read_bytes() == (tmp_path / "two.moeref").read_bytes()


def test_an_interrupt_leaves_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "model.moeref"
    path.write_bytes(b"an older file")

    def stopped() -> None:
        with ReferenceWriter(path, {}) as writer:
            writer.add_chunk(chunk(0), 12, sketch(0), {})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    with ReferenceWriter(path, {}) as writer:
        writer.add_chunk(chunk(0), 12, sketch(0), {})  # not finished
    assert [found.name for found in tmp_path.iterdir()] == ["model.moeref"]
    assert path.read_bytes() == b"an older file"


@pytest.mark.parametrize("room", [0, 200, 3000])
def test_a_full_disk_is_one_sentence(
    tmp_path: Path, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullDisk(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() + len(data) > room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    monkeypatch.setattr(Path, "open", lambda self, mode: FullDisk(self, mode))
    with pytest.raises(MoestroError, match="disk is full") as refused:
        write(tmp_path / "model.moeref")
    assert refused.value.code == "not-stored"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(MoestroError, match="could not be written") as refused:
        write(tmp_path / "no" / "model.moeref")
    assert refused.value.code == "not-stored"


def test_what_a_reader_would_refuse_is_not_written(tmp_path: Path) -> None:
    with ReferenceWriter(tmp_path / "model.moeref", {}) as writer:
        with pytest.raises(ValueError, match="name a part"):
            writer.add_arrays("../etc", {}, {})
        with pytest.raises(ValueError, match="not stored"):
            writer.add_arrays("things", {}, {"any": np.array([None, {}])})
        with pytest.raises(ValueError, match="from 0 to 399"):
            writer.add_chunk(chunk(0, 5000), 12, sketch(0), {})


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="does not exist"):
        ReferenceFile.open(tmp_path / "gone.moeref")
    with pytest.raises(ModelNotFound, match="cannot be read"):
        ReferenceFile.open(tmp_path)


def refused(path: Path) -> ModelError:
    with pytest.raises(ModelError) as error:
        read_all(path)
    assert error.value.hint
    assert "\n" not in error.value.sentence
    return error.value


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "whole.moeref"
    write(path, chunks=1)
    content = path.read_bytes()
    short = tmp_path / "short.moeref"
    for length in [*range(0, len(content), 97), len(content) - 1]:
        short.write_bytes(content[:length])
        assert refused(short).code == "reference-corrupt"


def test_a_changed_byte_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "whole.moeref"
    write(path, chunks=1)
    content = path.read_bytes()
    changed = tmp_path / "changed.moeref"
    generator = np.random.default_rng(1)
    unseen = 0
    for place in range(0, len(content), 97):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(generator.integers(8))
        changed.write_bytes(bytes(damaged))
        with contextlib.suppress(ModelError):
            read_all(changed)
            unseen += 1  # such as a part's date
    assert unseen < len(content) / 97 / 4


@pytest.mark.parametrize("content", [b"", b"PK", b"GGUF" + bytes(200), bytes(100_000)])
def test_what_is_no_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.moeref"
    path.write_bytes(content)
    assert refused(path).code == "reference-corrupt"


# What someone might make on purpose. Each takes a sound file's parts and spoils them.

Parts = dict[str, bytes]


def packed(facts: object, **arrays: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    line = {"facts": facts, "arrays": [name.replace("__", ".") for name in arrays]}
    stream.write(json.dumps(line).encode() + b"\n")
    for array in arrays.values():
        write_array(stream, array)
    return stream.getvalue()


def rewrite(path: Path, change: Callable[[Parts], None]) -> None:
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    change(parts)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(name, content)


def swap(part: str, old: bytes, new: bytes) -> Callable[[Parts], None]:
    def change(parts: Parts) -> None:
        assert old in parts[part]
        parts[part] = parts[part].replace(old, new, 1)

    return change


def put(part: str, content: bytes | None) -> Callable[[Parts], None]:
    def change(parts: Parts) -> None:
        parts.pop(part)
        if content is not None:
            parts[part] = content

    return change


CHUNK = "chunks/000000"
PICKLE = b"\x93NUMPY\x01\x00v\x00" + (
    b"{'descr': '|O', 'fortran_order': False, 'shape': (3,), }".ljust(117) + b"\n"
)


@pytest.mark.parametrize(
    "change",
    [
        put("header", None),
        put("end", None),
        put(CHUNK, None),
        put("arrays/generations", None),
        put("header", b""),
        put("header", b"no line of JSON"),
        put("header", b"[1, 2]\n"),
        put("header", b'{"facts": 7, "arrays": []}\n'),
        put("header", b"[" * 100_000 + b"\n"),
        put("header", b"\xff\xfe{}\n"),
        put("header", packed({"format": "moestro reference", "version": 1, "header": None})),
        put("header", packed({"format": "another", "version": 1, "header": {}})),
        put("end", packed({"chunks": 10**9, "arrays": [], "extra": {}})),
        put("end", packed({"chunks": True, "arrays": [], "extra": {}})),
        put("end", packed({"chunks": 1, "arrays": ["../../x"], "extra": {}})),
        swap(CHUNK, b"(24,)", b"(25,)"),
        swap(CHUNK, b"(24,)", b"(9999999999,)"),
        swap(CHUNK, b"(24,)", b"(99999999999999999999999,)"),
        swap(CHUNK, b"(24,)", b"(-1,)"),
        swap(CHUNK, b"(24,)", b"(0, 99999999999)"),
        swap(CHUNK, b"'<u2'", b"'|O8'"),
        swap(CHUNK, b"'<u2'", b"'<i2'"),
        swap(CHUNK, b"'<u2'", b"'>u2'"),
        swap(CHUNK, b"'<u2'", b"'|u1'"),
        swap(CHUNK, b"'<u2'", b"'<f2'"),
        swap(CHUNK, b"False", b"True "),
        swap(CHUNK, b"\x93NUMPY", b"\x93NUMPX"),
        swap(CHUNK, b'"vocabulary": 400', b'"vocabulary": 300'),
        swap(CHUNK, b'"vocabulary": 400', b'"vocabulary": -1'),
        swap(CHUNK, b'"vocabulary": 400', b'"vocabulary": "x"'),
        swap(CHUNK, b'"vocabulary": 400', b'"vocabulary": NaN'),
        swap(CHUNK, b'"first_scored": 12', b'"first_scored": 20'),
        swap(CHUNK, b'"routers": [2, 5]', b'"routers": [2, 6]'),
        swap(CHUNK, b'"routers": [2, 5]', b'"routers": [2, 2]'),
        swap(CHUNK, b'"routers": [2, 5]', b'"routers": [[], 5]'),
        swap(CHUNK, b'"tokens"', b'"sketch.ids"'),
        swap(CHUNK, b'"sketch.ends"', b'"sketch.eggs"'),
        swap("arrays/generations", b"\x93NUMPY", PICKLE + b"\x80\x04N.\x93NUMPY"),
        lambda parts: parts.update({CHUNK: parts[CHUNK] + b"more"}),
        lambda parts: parts.update({CHUNK: parts[CHUNK][:-5]}),
    ],
)
def test_spoilt_parts_are_refused(tmp_path: Path, change: Callable[[Parts], None]) -> None:
    path = tmp_path / "spoilt.moeref"
    write(path, chunks=1)
    rewrite(path, change)
    assert refused(path).code == "reference-corrupt"


def test_spoiling_nothing_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sound.moeref"
    write(path, chunks=1)
    rewrite(path, lambda parts: None)
    read_all(path)


@pytest.mark.parametrize("name", ["ends", "tail_ends", "target_log_p", "tail_log_mass", "log_p"])
def test_a_sketch_that_contradicts_itself_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "spoilt.moeref"
    given = sketch(0)
    values = getattr(given, name)
    for wrong in (values[::-1], values[1:], np.append(values, values[-1:])):
        spoilt = Sketch(
            **{one: getattr(given, one) for one in Sketch.__dataclass_fields__ if one != name},
            **{name: wrong},
        )
        if name in ("target_log_p", "tail_log_mass", "log_p") and len(wrong) == len(values):
            continue  # other values in another order are no contradiction
        with ReferenceWriter(path, {}) as writer:
            writer.add_chunk(chunk(0), 12, spoilt, {})
            writer.finish({})
        assert refused(path).code == "reference-corrupt"


def test_experts_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "spoilt.moeref"
    write(path, chunks=1)

    def change(parts: Parts) -> None:
        whole = parts[CHUNK]
        first = router(0).chosen.astype(np.uint8).tobytes()
        assert whole.count(first) == 1
        parts[CHUNK] = whole.replace(first, bytes([16]) + first[1:])

    rewrite(path, change)
    assert refused(path).code == "reference-corrupt"


def test_another_version_is_named(tmp_path: Path) -> None:
    path = tmp_path / "later.moeref"
    write(path)
    rewrite(path, swap("header", b'"version": 1', b'"version": 2'))
    error = refused(path)
    assert error.code == "reference-version"
    assert "version 2" in error.sentence


def test_encrypted_and_foreign_packing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "packed.moeref"
    write(path, chunks=1)
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as file:
        for name, content in parts.items():
            file.writestr(name, content)
    assert "packed in an unknown way" in refused(path).sentence


def test_a_part_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.moeref"
    write(path, chunks=1)
    bomb = packed({}, zeros=np.zeros(1 << 20, np.uint8))
    rewrite(path, lambda parts: parts.update({"arrays/generations": bomb}))
    read_all(path)
    monkeypatch.setattr(container, "MOST_PART_BYTES", 1 << 19)
    assert "too large" in refused(path).sentence


def test_too_many_parts_are_refused_before_they_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "many.moeref"
    write(path, chunks=30)
    read_all(path)
    monkeypatch.setattr(container, "MOST_DIRECTORY_BYTES", 1000)
    assert "too many parts" in refused(path).sentence


def test_two_parts_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.moeref"
    write(path, chunks=1)
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr(CHUNK, b"another")
    assert "two parts" in refused(path).sentence


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.uint16).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        np.arange(6, dtype=">i4"),
        np.zeros((0, 5), np.float16),
        np.zeros((3, 0), np.float16),
        np.float32(2.5) + np.zeros((), np.float32),
        np.array([True, False]),
    ],
)
def test_arrays_are_numpys_own_format(array: NDArray[Any]) -> None:
    stream = io.BytesIO()
    write_array(stream, np.asarray(array))
    content = stream.getvalue()
    by_numpy = np.load(io.BytesIO(content), allow_pickle=False)
    ours = read_array(io.BytesIO(content), len(content))
    np.testing.assert_array_equal(by_numpy, array)
    np.testing.assert_array_equal(ours, array)
    assert ours.shape == np.asarray(array).shape
    with pytest.raises(EOFError):
        read_array(io.BytesIO(content[: len(content) // 2]), len(content))


def test_a_header_that_is_a_program_is_not_run() -> None:
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2 ** 40,), }"
    content = b"\x93NUMPY\x01\x00v\x00" + text.ljust(117) + b"\n"
    with pytest.raises(ValueError, match="kind"):
        read_array(io.BytesIO(content), 1 << 50)
