"""The header reader: what it accepts, and one clear error for each way to be wrong."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import gguf as reference
import pytest

from moestro.errors import (
    ModelCorrupt,
    ModelError,
    ModelNotFound,
    ModelTruncated,
    ModelUnsupported,
    NotAModel,
)
from moestro.model import Folder, LocalFile, read_model
from moestro.model.ggml_types import FILE_TYPES, GGML_TYPES
from moestro.model.gguf import read_gguf_header
from moestro.model.metadata import SkippedArray, SkippedText
from moestro.model.source import FileSource
from tests.model import crafted
from tests.model.crafted import gguf, minimal_pairs, pair, raw_pair, tensor, text, write
from tests.tiny_models import TINY, write_tiny

HUGE = 1 << 60


def read(path: Path) -> object:
    return read_model(path)


def test_types_agree_with_the_format_package() -> None:
    known = {theirs.value: theirs for theirs in reference.GGML_QUANT_SIZES}
    compared = 0
    for number, kind in GGML_TYPES.items():
        # Q8_1 is never stored in files, and the package's size for it was wrong (40) for long.
        if number not in known or kind.name == "Q8_1":
            continue
        assert kind.name == known[number].name
        assert (kind.block_size, kind.block_bytes) == reference.GGML_QUANT_SIZES[known[number]]
        compared += 1
    assert compared >= 30
    ours = {kind.name for kind in GGML_TYPES.values()}
    assert {theirs.name for theirs in reference.GGML_QUANT_SIZES} <= ours


def test_file_types_agree_with_the_format_package() -> None:
    for theirs in reference.LlamaFileType:
        if theirs.name in ("GUESSED",) or theirs.value not in FILE_TYPES:
            continue
        name = theirs.name.removeprefix("ALL_").removeprefix("MOSTLY_")
        assert FILE_TYPES[theirs.value] == name


@pytest.mark.parametrize("name", TINY)
def test_agrees_with_the_format_package_on_real_files(name: str, tmp_path: Path) -> None:
    path = write_tiny(name, tmp_path)
    theirs = reference.GGUFReader(path)
    spec = read_model(path)
    assert {tensor.name: (tensor.shape, tensor.size_bytes) for tensor in spec.tensors} == {
        tensor.name: (tuple(tensor.shape.tolist()), int(tensor.n_bytes))
        for tensor in theirs.tensors
    }
    assert spec.vocabulary == 320
    assert spec.chat_template is not None
    assert spec.findings == ()


def test_every_kind_of_value(tmp_path: Path) -> None:
    pairs = [
        raw_pair("u8", 0, b"\xff"),
        raw_pair("i8", 1, b"\xff"),
        raw_pair("u16", 2, struct.pack("<H", 65535)),
        raw_pair("i16", 3, struct.pack("<h", -2)),
        raw_pair("u32", 4, struct.pack("<I", 7)),
        raw_pair("i32", 5, struct.pack("<i", -7)),
        raw_pair("f32", 6, struct.pack("<f", 0.5)),
        raw_pair("bool", 7, b"\x01"),
        raw_pair("text", 8, text("grüße")),
        raw_pair("u64", 10, struct.pack("<Q", 1 << 63)),
        raw_pair("i64", 11, struct.pack("<q", -1)),
        raw_pair("f64", 12, struct.pack("<d", 0.25)),
        raw_pair("flags", 9, struct.pack("<IQ", 7, 3) + b"\x01\x00\x01"),
        raw_pair("texts", 9, struct.pack("<IQ", 8, 2) + text("a") + text("b")),
        raw_pair("none", 9, struct.pack("<IQ", 4, 0)),
        raw_pair("many", 9, struct.pack("<IQ", 5, 5000) + bytes(20000)),
        raw_pair("long", 8, text(b"x" * (2 << 20))),
    ]
    path = write(tmp_path / "v.gguf", gguf(pairs, []))
    with FileSource(path) as source:
        metadata = read_gguf_header(source).metadata
    assert metadata == {
        "u8": 255,
        "i8": -1,
        "u16": 65535,
        "i16": -2,
        "u32": 7,
        "i32": -7,
        "f32": 0.5,
        "bool": True,
        "text": "grüße",
        "u64": 1 << 63,
        "i64": -1,
        "f64": 0.25,
        "flags": [True, False, True],
        "texts": ["a", "b"],
        "none": [],
        "many": SkippedArray(5000),
        "long": SkippedText(2 << 20),
    }


@pytest.mark.parametrize(
    "lengths", [[0], [300, 1, 0, 70], [5] * 3000, [1 << 21, 3], [63, 64] * 700]
)
def test_token_lists_of_any_lengths_are_passed_over(tmp_path: Path, lengths: list[int]) -> None:
    texts = b"".join(text(b"x" * length) for length in lengths)
    tokens = raw_pair("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, len(lengths)) + texts)
    pairs = [tokens, pair("after", 42)]
    path = write(tmp_path / "t.gguf", gguf(pairs, []))
    with FileSource(path) as source:
        metadata = read_gguf_header(source).metadata
    assert metadata["tokenizer.ggml.tokens"] == SkippedArray(len(lengths))
    assert metadata["after"] == 42


def test_version_2_and_other_alignments(tmp_path: Path) -> None:
    pairs = [*minimal_pairs(), pair("general.alignment", 64)]
    data = gguf(pairs, [tensor("a", (32,), offset=64)], version=2)
    path = write(tmp_path / "a.gguf", data)
    with FileSource(path) as source:
        header = read_gguf_header(source)
    assert header.alignment == 64
    assert header.data_offset % 64 == 0
    assert header.data_bytes == 64 + 128


WRONG: dict[str, tuple[bytes, type[ModelError], str]] = {
    "empty": (b"", NotAModel, "is empty"),
    "two bytes": (b"GG", ModelTruncated, "2 bytes"),
    "only the magic": (b"GGUF", ModelTruncated, "4 bytes"),
    "text": (b"hello, I am no model at all" * 10, NotAModel, "is not a GGUF model"),
    "zeros": (bytes(4096), NotAModel, "zeros"),
    "zip": (b"PK\x03\x04" + bytes(60), NotAModel, "PyTorch"),
    "pickle": (b"\x80\x02" + bytes(60), NotAModel, "pickle"),
    "web page": (b"<!DOCTYPE html><html>" + bytes(60), NotAModel, "web page"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\n", NotAModel, "Git LFS"),
    "safetensors": (struct.pack("<Q", 100) + b'{"a":1}' + bytes(60), NotAModel, "safetensors"),
    "old format": (b"tjgg" + bytes(60), NotAModel, "before GGUF"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 1, 1) + bytes(60), ModelUnsupported, "big-end"),
    "version 1": (gguf([], [], version=1), ModelUnsupported, "version 1"),
    "version 99": (gguf([], [], version=99), ModelUnsupported, "version 99"),
    "tensor count": (gguf([], [], tensor_count=HUGE), ModelCorrupt, "tensors"),
    "pair count": (gguf([], [], pair_count=HUGE), ModelCorrupt, "keys"),
    "pairs beyond the end": (gguf([], [], pair_count=10_000, data=0), ModelTruncated, "header"),
    "pair too many": (gguf([], [], pair_count=1, data=0), ModelTruncated, "header"),
    "key length": (gguf([struct.pack("<Q", HUGE)], []), ModelCorrupt, "name of"),
    "empty key": (gguf([raw_pair("", 4, bytes(4))], []), ModelCorrupt, "name of 0"),
    "key not UTF-8": (gguf([raw_pair(b"\xff\xfe", 4, bytes(4))], []), ModelCorrupt, "UTF-8"),
    "same key twice": (gguf([pair("a", 1), pair("a", 2)], []), ModelCorrupt, "twice"),
    "unknown kind": (gguf([raw_pair("a", 77, bytes(8))], []), ModelCorrupt, "unknown kind 77"),
    "text length": (gguf([raw_pair("a", 8, struct.pack("<Q", HUGE))], []), ModelCorrupt, "absurd"),
    "text beyond the end": (
        gguf([raw_pair("a", 8, struct.pack("<Q", 1 << 20))], []),
        ModelTruncated,
        "header",
    ),
    "array length": (
        gguf([raw_pair("a", 9, struct.pack("<IQ", 4, HUGE))], []),
        ModelCorrupt,
        "absurd",
    ),
    "array of texts": (
        gguf([raw_pair("a", 9, struct.pack("<IQ", 8, HUGE))], []),
        ModelCorrupt,
        "absurd",
    ),
    "array beyond the end": (
        gguf([raw_pair("a", 9, struct.pack("<IQ", 4, 1 << 20))], []),
        ModelTruncated,
        "header",
    ),
    "text in an array": (
        gguf([raw_pair("a", 9, struct.pack("<IQQ", 8, 5000, HUGE) + bytes(40000))], []),
        ModelCorrupt,
        "absurd",
    ),
    "array of arrays": (
        gguf([raw_pair("a", 9, struct.pack("<IQ", 9, 1) + bytes(64))], []),
        ModelCorrupt,
        "nests",
    ),
    "array of nonsense": (
        gguf([raw_pair("a", 9, struct.pack("<IQ", 55, 1) + bytes(64))], []),
        ModelCorrupt,
        "unknown kind 55",
    ),
    "alignment 0": (gguf([pair("general.alignment", 0)], []), ModelCorrupt, "power of two"),
    "alignment 48": (gguf([pair("general.alignment", 48)], []), ModelCorrupt, "power of two"),
    "alignment text": (gguf([pair("general.alignment", "x")], []), ModelCorrupt, "power of two"),
    "dimensions": (gguf([], [tensor("a", (), count=4_000_000)]), ModelCorrupt, "dimensions"),
    "empty dimension": (gguf([], [tensor("a", (32, 0))]), ModelCorrupt, "absurd shape"),
    "overflow": (gguf([], [tensor("a", (1 << 40, 1 << 40))]), ModelCorrupt, "absurd shape"),
    "broken row": (gguf([], [tensor("a", (33, 4), kind=8)]), ModelCorrupt, "multiple of 32"),
    "offset": (gguf([], [tensor("a", (32,), offset=7)]), ModelCorrupt, "alignment"),
    "removed type": (gguf([], [tensor("a", (32,), kind=31)]), ModelUnsupported, "removed"),
    "newer type": (gguf([], [tensor("a", (32,), kind=99)]), ModelUnsupported, "unknown type"),
    "ik type": (gguf([], [tensor("a", (256,), kind=139)]), ModelUnsupported, "ik_llama"),
    "tensor name": (gguf([], [tensor("x" * 300, (32,))]), ModelCorrupt, "name of 300"),
    "same tensor twice": (
        gguf(minimal_pairs(), [tensor("a", (32,)), tensor("a", (32,), offset=128)]),
        ModelCorrupt,
        "alike",
    ),
    "overlap": (
        gguf(minimal_pairs(), [tensor("a", (64,)), tensor("b", (32,), offset=128)]),
        ModelCorrupt,
        "over the tensor",
    ),
    "data cut off": (
        gguf(minimal_pairs(), [tensor("a", (1 << 20,))], data=100),
        ModelTruncated,
        "cut off",
    ),
    "offset beyond the end": (
        gguf(minimal_pairs(), [tensor("a", (32,), offset=1 << 40)]),
        ModelTruncated,
        "cut off",
    ),
    "no architecture": (gguf([pair("a", 1)], []), ModelCorrupt, "architecture"),
    "architecture a number": (
        gguf([pair("general.architecture", 3)], []),
        ModelCorrupt,
        "architecture",
    ),
    "block count": (
        gguf([*minimal_pairs()[:1], pair("llama.block_count", 2_000_000_000)], []),
        ModelCorrupt,
        "block_count",
    ),
    "block count a text": (
        gguf([*minimal_pairs()[:1], pair("llama.block_count", "many")], []),
        ModelCorrupt,
        "block_count",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_each_way_to_be_wrong_has_its_sentence(case: str, tmp_path: Path) -> None:
    content, kind, words = WRONG[case]
    path = write(tmp_path / "bad.gguf", content)
    with pytest.raises(kind) as caught:
        read(path)
    assert type(caught.value) is kind
    assert words in caught.value.sentence
    assert "bad.gguf" in caught.value.sentence
    assert caught.value.hint


def test_a_file_cut_anywhere_is_truncated_or_no_model(tmp_path: Path) -> None:
    whole = crafted.good()
    read(write(tmp_path / "whole.gguf", whole))
    for length in range(len(whole) - 1):
        with pytest.raises(ModelTruncated if length else NotAModel):
            read(write(tmp_path / "cut.gguf", whole[:length]))


def test_the_last_tensors_padding_is_not_needed(tmp_path: Path) -> None:
    data = gguf(minimal_pairs(), [tensor("token_embd.weight", (33,))], data=0) + bytes(33 * 4)
    assert read(write(tmp_path / "m.gguf", data))


def test_a_gap_between_tensors_is_a_warning(tmp_path: Path) -> None:
    tensors = [tensor("a", (32,)), tensor("b", (32,), offset=4096)]
    spec = read_model(write(tmp_path / "m.gguf", gguf(minimal_pairs(), tensors)))
    assert [(f.severity, f.code) for f in spec.findings] == [("warn", "tensor-gap")]


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no file"):
        read(tmp_path / "absent.gguf")
    with pytest.raises(ModelNotFound) as caught:
        read_model(LocalFile(Path("owner/repo")))
    assert caught.value.hint is not None
    assert "hf:owner/repo" in caught.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", crafted.good())
    path.chmod(0)
    with pytest.raises(ModelNotFound, match="cannot be read"):
        read(path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe.gguf"
    os.mkfifo(path)
    with pytest.raises(NotAModel, match="not a regular file"):
        read(path)


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="holds no model"):
        read_model(tmp_path)
    write(tmp_path / "one.gguf", crafted.good())
    write(tmp_path / "mmproj-one.gguf", b"a projector, not looked into")
    assert read_model(Folder(tmp_path)).architecture == "llama"
    write(tmp_path / "two.gguf", crafted.good())
    with pytest.raises(ModelNotFound, match="2 GGUF models"):
        read_model(tmp_path)
