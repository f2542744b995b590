"""Reads the header of one GGUF file: key-value pairs and tensor descriptions, never weights.

Format: `GGUF`, version (32 bit), number of tensors, number of pairs (64 bit each), the pairs, the
tensor descriptions, padding to the alignment, tensor data. Little-endian. Every count and length in
it is a claim, and is checked before it is believed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from moestro.errors import ModelCorrupt, ModelTruncated, ModelUnsupported
from moestro.model.cursor import Cursor
from moestro.model.foreign import not_a_model
from moestro.model.ggml_types import GGML_TYPES, REMOVED_TYPES, GgmlType
from moestro.model.metadata import Scalar, SkippedArray, SkippedText, Value
from moestro.model.source import ByteSource
from moestro.units import format_bytes
from moestro.words import shown

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_PAIRS = 1 << 14
MAX_TENSORS = 1 << 16
MAX_KEY_BYTES = 1 << 16
MAX_TENSOR_NAME_BYTES = 256
MAX_DIMENSIONS = 4
MAX_ELEMENTS = 1 << 62
MAX_ALIGNMENT = 1 << 20
MAX_KEPT_TEXT_BYTES = 1 << 20
MAX_KEPT_ITEMS = 1024
DEFAULT_ALIGNMENT = 32

_STRING, _ARRAY = 8, 9
_SCALARS = {
    number: struct.Struct("<" + letter)
    for number, letter in {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B",
                           10: "Q", 11: "q", 12: "d"}.items()
}  # fmt: skip
_BOOL = 7
_U32 = struct.Struct("<I")
_ARRAY_HEAD = struct.Struct("<IQ")
_TENSOR_TAIL = struct.Struct("<IQ")


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """`dims` start with the row length; `offset` counts from the start of the data section."""

    name: str
    type: GgmlType
    dims: tuple[int, ...]
    elements: int
    size_bytes: int
    offset: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What one file says. `data_offset` is where tensor data starts, `data_bytes` how much there
    must be (padding between tensors included, after the last one not).

    `kinds` are the format's numbers for the kinds of the values; of an array a pair, its own and
    that of its members. `spans` are the values' first and last offsets in the file: of an array
    that was skipped, where to find it.
    """

    version: int
    metadata: dict[str, Value]
    kinds: dict[str, int | tuple[int, int]]
    spans: dict[str, tuple[int, int]]
    tensors: tuple[GgufTensor, ...]
    data_offset: int
    data_bytes: int
    alignment: int


def read_gguf_header(source: ByteSource) -> GgufHeader:
    """The header of `source`, checked against the length of the file where that is known.

    Raises:
        NotAModel, ModelTruncated, ModelCorrupt, ModelUnsupported: as their names say.
    """
    cursor = Cursor(source)
    version, tensor_count, pair_count = _preamble(cursor)
    metadata: dict[str, Value] = {}
    kinds: dict[str, int | tuple[int, int]] = {}
    spans: dict[str, tuple[int, int]] = {}
    for _ in range(pair_count):
        key = _name(cursor, MAX_KEY_BYTES, "a key")
        if key in metadata:
            raise _corrupt(source, f"has the key {shown(key)} twice")
        begin = cursor.offset
        metadata[key], kinds[key] = _value(cursor, key)
        spans[key] = begin + _U32.size, cursor.offset
    alignment = _alignment(source, metadata)
    cursor.expected_bytes = 80 * tensor_count
    tensors = tuple(_tensor(cursor, alignment) for _ in range(tensor_count))
    header_end = cursor.offset
    data_offset = header_end + -header_end % alignment
    data_bytes = _check_layout(source, tensors)
    _check_length(source, data_offset, data_bytes)
    return GgufHeader(version, metadata, kinds, spans, tensors, data_offset, data_bytes, alignment)


def _preamble(cursor: Cursor) -> tuple[int, int, int]:
    source = cursor.source
    start = cursor.peek(64)
    if not start.startswith(MAGIC):
        raise not_a_model(source, start)
    cursor.skip(4, "its magic number")
    (version,) = cursor.unpack(_U32, "its version")
    assert isinstance(version, int)
    if version & 0xFFFF == 0 and version:
        raise ModelUnsupported(
            f"{source.name} is a big-endian GGUF.",
            hint="Convert it with gguf-convert-endian, or get the little-endian file.",
        )
    if version not in VERSIONS:
        raise ModelUnsupported(
            f"{source.name} is GGUF version {version}; versions 2 and 3 are understood.",
            hint="Convert the model again with a current converter."
            if version < 2
            else "A newer moestro may know it.",
        )
    tensor_count = cursor.length("its tensor count")
    pair_count = cursor.length("its key count")
    if tensor_count > MAX_TENSORS:
        raise _corrupt(source, f"claims {tensor_count:,} tensors")
    if pair_count > MAX_PAIRS:
        raise _corrupt(source, f"claims {pair_count:,} keys")
    # The shortest pair and the shortest tensor description, so that a lie is found here.
    cursor.check(13 * pair_count + 24 * tensor_count, "its keys and tensors")
    return version, tensor_count, pair_count


def _name(cursor: Cursor, most_bytes: int, what: str) -> str:
    length = cursor.length(what)
    if not 0 < length <= most_bytes:
        raise _corrupt(cursor.source, f"has a name of {length:,} bytes")
    raw = cursor.take(length, what)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _corrupt(cursor.source, "has a name that is not UTF-8") from error


def _value(cursor: Cursor, key: str) -> tuple[Value, int | tuple[int, int]]:
    """The value and its kind."""
    (kind,) = cursor.unpack(_U32, key)
    assert isinstance(kind, int)
    if kind == _STRING:
        return _text(cursor, key), kind
    if kind == _ARRAY:
        value, of = _array(cursor, key)
        return value, (kind, of)
    return _scalar(cursor, kind, key), kind


def _scalar(cursor: Cursor, kind: int, key: str) -> Scalar:
    layout = _SCALARS.get(kind)
    if layout is None:
        raise _corrupt(cursor.source, f"gives {shown(key)} the unknown kind {kind}")
    (value,) = cursor.unpack(layout, key)
    return bool(value) if kind == _BOOL else value


def _text(cursor: Cursor, key: str) -> str | SkippedText:
    length = cursor.length(key)
    if length > MAX_KEPT_TEXT_BYTES:
        cursor.skip(length, key)
        return SkippedText(length)
    return cursor.take(length, key).decode("utf-8", errors="replace")


def _array(cursor: Cursor, key: str) -> tuple[Value, int]:
    """The members and their kind."""
    kind, count = cursor.unpack(_ARRAY_HEAD, key)
    assert isinstance(kind, int)
    assert isinstance(count, int)
    if kind == _ARRAY:
        raise _corrupt(cursor.source, f"nests arrays in {shown(key)}")
    if kind == _STRING:
        if count > MAX_KEPT_ITEMS or key.startswith("tokenizer.ggml."):
            cursor.skip_strings(count, key)
            return SkippedArray(count), kind
        texts = [_text(cursor, key) for _ in range(count)]
        return [text for text in texts if isinstance(text, str)], kind
    layout = _SCALARS.get(kind)
    if layout is None:
        raise _corrupt(cursor.source, f"gives {shown(key)} members of the unknown kind {kind}")
    if count > MAX_KEPT_ITEMS:
        cursor.skip(count * layout.size, key)
        return SkippedArray(count), kind
    cursor.keep(8 * count, key)  # a member is a pointer here, whatever its size there
    values = struct.unpack(f"<{count}{layout.format[1:]}", cursor.take(count * layout.size, key))
    return ([bool(value) for value in values] if kind == _BOOL else list(values)), kind


def _alignment(source: ByteSource, metadata: dict[str, Value]) -> int:
    value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    good = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_ALIGNMENT
    if not good or not isinstance(value, int) or value & (value - 1):
        raise _corrupt(source, "has an alignment that is not a power of two")
    return value


def _tensor(cursor: Cursor, alignment: int) -> GgufTensor:
    source = cursor.source
    name = _name(cursor, MAX_TENSOR_NAME_BYTES, "a tensor's name")
    (count,) = cursor.unpack(_U32, name)
    assert isinstance(count, int)
    if count > MAX_DIMENSIONS:
        raise _corrupt(source, f"gives {shown(name)} {count:,} dimensions")
    dims = struct.unpack(f"<{count}Q", cursor.take(8 * count, name)) or (1,)
    number, offset = cursor.unpack(_TENSOR_TAIL, name)
    assert isinstance(number, int)
    assert isinstance(offset, int)
    kind = _tensor_type(source, name, number)
    elements = 1
    for dim in dims:
        elements *= dim
        if not 0 < elements <= MAX_ELEMENTS:
            raise _corrupt(source, f"gives {shown(name)} an absurd shape")
    if dims[0] % kind.block_size:
        raise _corrupt(
            source,
            f"stores {shown(name)} as {kind.name} in rows of {dims[0]}, not a multiple of "
            f"{kind.block_size}",
        )
    if offset % alignment:
        raise _corrupt(source, f"places {shown(name)} off its alignment of {alignment} bytes")
    size_bytes = elements // kind.block_size * kind.block_bytes
    return GgufTensor(name, kind, dims, elements, size_bytes, offset)


def _tensor_type(source: ByteSource, name: str, number: int) -> GgmlType:
    kind = GGML_TYPES.get(number)
    if kind is not None:
        return kind
    if number in REMOVED_TYPES:
        raise ModelUnsupported(
            f"{source.name} stores {shown(name)} as {REMOVED_TYPES[number]}, a type that was "
            "removed from the format.",
            hint="Get the plain Q4_0 or IQ4_NL file: engines repack it when they load it.",
        )
    if 100 <= number < 1000:
        raise ModelUnsupported(
            f"{source.name} stores {shown(name)} in type number {number}, which only ik_llama.cpp "
            "understands.",
            hint="Get the same model in a mainline type such as Q4_K_M or IQ4_XS.",
        )
    raise ModelUnsupported(
        f"{source.name} stores {shown(name)} in the unknown type number {number}.",
        hint="The file is newer than this moestro, or damaged.",
    )


def _check_layout(source: ByteSource, tensors: tuple[GgufTensor, ...]) -> int:
    """No name twice, no two tensors in one place. Returns where the last tensor ends."""
    names = {tensor.name for tensor in tensors}
    if len(names) != len(tensors):
        raise _corrupt(source, "names two tensors alike")
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        if tensor.offset < end:
            raise _corrupt(source, f"places {shown(tensor.name)} over the tensor before it")
        end = tensor.offset + tensor.size_bytes
    return end


def _check_length(source: ByteSource, data_offset: int, data_bytes: int) -> None:
    size = source.size_bytes
    wanted = data_offset + data_bytes
    if size is not None and data_bytes and wanted > size:
        raise ModelTruncated(
            f"{source.name} is cut off: its header describes {format_bytes(wanted)} "
            f"({wanted:,} bytes), the file has {format_bytes(size)} ({size:,}).",
            hint="The download or copy is incomplete; get the file again.",
        )


def _corrupt(source: ByteSource, what: str) -> ModelCorrupt:
    return ModelCorrupt(
        f"{source.name} {what}.",
        hint="The file is damaged or was written wrongly; get it again from its source.",
    )
