"""Split models: any part names the whole, and what is missing is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from moestro.errors import ModelCorrupt, ModelPartMissing
from moestro.model import read_model
from moestro.model.splits import parse_split_name
from tests.shapes import write_header, write_split
from tests.tiny_models import TINY


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    return write_split(TINY["qwen3moe"](), tmp_path, "tiny", 3)


def test_names() -> None:
    name = parse_split_name("a-b-00002-of-00003.gguf")
    assert name is not None
    assert (name.stem, name.number, name.count) == ("a-b", 2, 3)
    assert name.parts()[2] == "a-b-00003-of-00003.gguf"
    for other in ("a.gguf", "a-00000-of-00003.gguf", "a-00004-of-00003.gguf", "a-1-of-2.gguf",
                  "a-00001-of-99999.gguf"):  # fmt: skip
        assert parse_split_name(other) is None


def test_any_part_names_the_whole(parts: list[Path], tmp_path: Path) -> None:
    whole = read_model(write_header(TINY["qwen3moe"](), tmp_path / "whole.gguf"))
    for part in parts:
        spec = read_model(part)
        assert spec.tensor_bytes == whole.tensor_bytes
        assert spec.parameters == whole.parameters
        assert [file.location for file in spec.files] == [str(path) for path in parts]
        assert {tensor.file for tensor in spec.tensors} == {0, 1, 2}


def test_missing_parts_are_named(parts: list[Path]) -> None:
    parts[1].unlink()
    with pytest.raises(ModelPartMissing, match="1 of 3 parts of tiny is missing") as caught:
        read_model(parts[2])
    assert parts[1].name in caught.value.sentence
    parts[0].unlink()
    with pytest.raises(ModelPartMissing, match="2 of 3 parts of tiny are missing"):
        read_model(parts[2])


def test_mixed_up_parts(parts: list[Path]) -> None:
    swap = parts[0].with_name("swap")
    parts[1].rename(swap)
    parts[2].rename(parts[1])
    swap.rename(parts[2])
    with pytest.raises(ModelCorrupt, match="part 3 of 3"):
        read_model(parts[0])


def test_a_part_with_the_tensors_of_another(parts: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    longer = write_split(TINY["mixtral"](), other, "tiny", 3)
    longer[2].replace(parts[2])
    with pytest.raises(ModelCorrupt, match=r"repeats the tensor|were split"):
        read_model(parts[0])


def test_a_renamed_part(parts: list[Path], tmp_path: Path) -> None:
    alone = parts[0].rename(tmp_path / "model.gguf")
    with pytest.raises(ModelPartMissing, match="one of 3 parts"):
        read_model(alone)
