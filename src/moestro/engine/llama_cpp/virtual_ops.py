"""What llama.cpp's CUDA backend runs on the GPU, and how much room a result takes there.

The rules are those of `ggml_backend_cuda_device_supports_op`, `…_buffer_type_get_alloc_size` and
`ggml_cuda_get_best_fattn_kernel` of the release in `version`, for GPUs with tensor cores (Turing
and later). An operation that is missing here runs on the host, as it would there.

Operations and types go by their names; their numbers, block sizes and so on are asked of the
engine's library.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from ctypes import c_char_p, c_int, c_int64, c_size_t, c_void_p

from moestro.engine.llama_cpp.backend_structs import Tensor

Rule = Callable[[int], bool]
"""Whether a GPU runs the operation whose tensor is at this address."""

_SOURCES, _STRIDES = Tensor.src.offset, Tensor.nb.offset
_POINTER_BYTES = 8

MATRIX_ROW_PADDING = 512
"""Rows of quantized matrices end on a multiple of this many values."""

_ALWAYS = (
    "NONE RESHAPE VIEW PERMUTE TRANSPOSE ADD_ID ADD1 SQR SQRT SIN COS LOG DUP ARGMAX COUNT_EQUAL "
    "CONT DIAG_MASK_INF SOFT_MAX CONV_TRANSPOSE_2D POOL_1D POOL_2D TOP_K ARGSORT PAD UPSCALE "
    "PAD_REFLECT_1D ARANGE TIMESTEP_EMBEDDING LEAKY_RELU RWKV_WKV6 GATED_LINEAR_ATTN RWKV_WKV7 "
    "GATED_DELTA_NET CROSS_ENTROPY_LOSS CROSS_ENTROPY_LOSS_BACK OPT_STEP_ADAMW OPT_STEP_SGD FILL "
    "CUMSUM TRI DIAG SOLVE_TRI DSV4_HC_COMB DSV4_HC_PRE DSV4_HC_POST UNARY GLU NORM RMS_NORM "
    "L2_NORM CLAMP SUM SUM_ROWS MEAN GROUP_NORM ROPE ROPE_BACK IM2COL IM2COL_3D CONV_2D CONV_2D_DW "
    "ACC REPEAT_BACK"
)
_MATRICES = (
    "f32 f16 bf16 q1_0 q2_0 q4_0 q4_1 q5_0 q5_1 q8_0 mxfp4 nvfp4 q2_K q3_K q4_K q5_K q6_K q8_K "
    "iq1_m iq1_s iq2_s iq2_xs iq2_xxs iq3_s iq3_xxs iq4_nl iq4_xs"
)
_SQUARE_HEADS = frozenset((40, 64, 72, 80, 96, 112, 128, 256))
_CELLS_STRIDE = 256  # FATTN_KQ_STRIDE
_PREC_F32 = 10  # GGML_PREC_F32
_OP_COUNT, _TYPE_COUNT = 101, 43  # GGML_OP_COUNT, GGML_TYPE_COUNT


def source(tensor: Tensor, number: int) -> Tensor:
    """A source that is known to be there."""
    return Tensor.from_address(tensor.src[number])


class CudaRules:
    """`by_op` says for each operation, by its number, whether a GPU runs it: always, never, or by
    a rule."""

    def __init__(self, library: ctypes.CDLL) -> None:
        for function, result, arguments in (
            ("ggml_op_name", c_char_p, [c_int]),
            ("ggml_type_name", c_char_p, [c_int]),
            ("ggml_blck_size", c_int64, [c_int]),
            ("ggml_type_size", c_size_t, [c_int]),
            ("ggml_nbytes", c_size_t, [c_void_p]),
        ):
            getattr(library, function).restype = result
            getattr(library, function).argtypes = arguments
        self._nbytes = library.ggml_nbytes
        self._learn_types(library)
        self.operations = _names(library.ggml_op_name, _OP_COUNT)
        self._attention_number = self.operations.index("FLASH_ATTN_EXT")
        always = set(_ALWAYS.split())
        special: dict[str, Rule] = {
            name: lambda address, rule=rule: rule(Tensor.from_address(address))  # type: ignore[misc]
            for name, rule in self._special().items()
        }
        special.update(self._frequent(special))
        self.by_op: list[Rule | bool] = [
            special.get(name, name in always) for name in self.operations
        ]

    def alloc_size_function(self) -> Callable[[int, int], int]:
        """(buffer type, address of a tensor) → what the tensor takes on a GPU. It is asked for
        every tensor of every graph, so plain tensors are answered at once."""
        nbytes, attention = self._nbytes, self._attention_number
        number_at = ctypes.c_int.from_address
        op_offset = Tensor.op.offset
        plain = frozenset(number for number, (block, _) in self._blocks.items() if block == 1)

        def alloc_size(_buffer_type: int, address: int) -> int:
            size_bytes: int = nbytes(address)
            if number_at(address + op_offset).value == attention:
                tensor = Tensor.from_address(address)
                return size_bytes + self._attention_copies_bytes(tensor, size_bytes)
            if number_at(address).value in plain:
                return size_bytes
            return size_bytes + self._padding_bytes(Tensor.from_address(address))

        return alloc_size

    def _padding_bytes(self, tensor: Tensor) -> int:
        """The rest of a row, for a quantized tensor whose rows end elsewhere."""
        block, block_bytes = self._blocks[tensor.type]
        rest = tensor.ne[0] % MATRIX_ROW_PADDING
        return int((MATRIX_ROW_PADDING - rest) // block * block_bytes) if rest else 0

    def batch(self, op: Tensor) -> int:
        """Rows that an operation works on, as the backend counts them when it decides to take an
        operation over from the host."""
        name = self.operations[op.op]
        if name == "GET_ROWS":
            return 0
        if name == "MUL_MAT":
            return int(op.ne[1])
        if name in ("MUL_MAT_ID", "ROPE", "ROPE_BACK"):
            return int(op.ne[2])
        return int(op.ne[1] * op.ne[2] * op.ne[3])

    def _learn_types(self, library: ctypes.CDLL) -> None:
        names = _names(library.ggml_type_name, _TYPE_COUNT)
        self._blocks = {
            number: (int(library.ggml_blck_size(number)), int(library.ggml_type_size(number)))
            for number, name in enumerate(names)
            if name
        }

        def numbers(wanted: str | Iterable[str]) -> frozenset[int]:
            listed = wanted.split() if isinstance(wanted, str) else wanted
            return frozenset(names.index(name) for name in listed if name in names)

        self._f32, self._f16, self._bf16, self._i32, self._i64 = (
            names.index(name) for name in ("f32", "f16", "bf16", "i32", "i64")
        )
        self._floats = numbers("f32 f16 bf16")
        self._matrices = numbers(_MATRICES)
        self._tables = self._matrices - numbers("q8_K nvfp4") | {self._i32}
        self._whole_tables = numbers("iq4_nl mxfp4")
        self._attended = numbers("f32 f16 bf16 q4_0 q4_1 q5_0 q5_1 q8_0")
        self._written = numbers("f32 f16 bf16 q4_0 q4_1 q5_0 q5_1 q8_0 iq4_nl")
        self._from_float = numbers("q8_0 q4_0 q4_1 q5_0 q5_1 iq4_nl i32")
        self._to_float = numbers("q8_0 q4_0 q4_1 q5_0 q5_1 i32")

    def _frequent(self, rules: dict[str, Rule]) -> dict[str, Rule]:
        """Quick answers for the usual form of what most of a graph consists of, before the rules;
        through structs they would take most of a dry run's time."""
        number_at, address_at, size_at = (kind.from_address for kind in (c_int, c_int64, c_size_t))
        f32, matrices = self._f32, self._matrices
        block_bytes = {number: size for number, (_, size) in self._blocks.items()}

        def arithmetic(address: int, rule: Rule = rules["ADD"]) -> bool:
            one = address_at(address + _SOURCES).value
            other = address_at(address + _SOURCES + _POINTER_BYTES).value
            if number_at(one).value == number_at(other).value == number_at(address).value == f32:
                return True
            return rule(address)

        def matrix(address: int, rule: Rule = rules["MUL_MAT"]) -> bool:
            left = address_at(address + _SOURCES).value
            right = address_at(address + _SOURCES + _POINTER_BYTES).value
            kind = number_at(left).value
            if (
                kind in matrices
                and number_at(right).value == f32
                and size_at(left + _STRIDES).value == block_bytes[kind]
                and size_at(right + _STRIDES).value == block_bytes[f32]
            ):
                return True
            return rule(address)

        found: dict[str, Rule] = dict.fromkeys(("ADD", "SUB", "MUL", "DIV"), arithmetic)
        return {**found, "MUL_MAT": matrix}

    def _special(self) -> dict[str, Callable[[Tensor], bool]]:
        return {
            "ADD": self._arithmetic,
            "SUB": self._arithmetic,
            "MUL": self._arithmetic,
            "DIV": self._arithmetic,
            "MUL_MAT": self._matrix,
            "MUL_MAT_ID": lambda op: self._matrix(op) and op.op_params[3] != _PREC_F32,
            "GET_ROWS": self._rows,
            "SET_ROWS": self._set_rows,
            "SET": self._set,
            "CPY": self._copy,
            "CONCAT": lambda op: source(op, 0).type == source(op, 1).type == op.type,
            "REPEAT": lambda op: source(op, 0).type in (self._f32, self._f16),
            "SCALE": self._scale,
            "SSM_SCAN": _scan,
            "SSM_CONV": lambda op: bool(source(op, 0).ne[1] % 128 == 0),
            "FLASH_ATTN_EXT": self._attention,
            "LIGHTNING_INDEXER": lambda op: bool(source(op, 0).ne[0] == 128),
        }

    def _arithmetic(self, op: Tensor) -> bool:
        types = (source(op, 0).type, source(op, 1).type, op.type)
        if self._bf16 in types:
            return types[0] == types[2] == self._bf16 and types[1] in (self._bf16, self._f32)
        return all(kind in (self._f32, self._f16) for kind in types)

    def _matrix(self, op: Tensor) -> bool:
        left, right = source(op, 0), source(op, 1)
        packed = all(side.nb[0] == self._blocks[side.type][1] for side in (left, right))
        halves = right.type == self._f16 and left.type != self._f16
        return packed and not halves and left.type in self._matrices

    def _rows(self, op: Tensor) -> bool:
        table = source(op, 0)
        if table.type in self._whole_tables:
            return bool(table.ne[0] % 256 == 0)
        return table.type in self._tables

    def _set_rows(self, op: Tensor) -> bool:
        kind = source(op, 0).type
        writes = kind == self._f32 and op.type in self._written
        return (writes or kind == op.type == self._f16) and (
            source(op, 1).type in (self._i32, self._i64)
        )

    def _set(self, op: Tensor) -> bool:
        return op.type in (self._f32, self._i32) and (
            op.type == source(op, 0).type == source(op, 1).type
        )

    def _copy(self, op: Tensor) -> bool:
        one, other = source(op, 0).type, source(op, 1).type
        return (
            (one in self._floats and other in self._floats)
            or (one == self._f32 and other in self._from_float)
            or (other == self._f32 and one in self._to_float)
            or one == other
        )

    def _scale(self, op: Tensor) -> bool:
        kind = source(op, 0).type
        return kind in (self._f32, self._bf16) and op.type == kind

    def _attention(self, op: Tensor) -> bool:
        """`ggml_cuda_flash_attn_ext_supported`: a kernel exists for these heads."""
        query, key, value = source(op, 0), source(op, 1), source(op, 2)
        ratio = query.ne[2] // key.ne[2]
        widths = (key.ne[0], value.ne[0])
        if widths[0] in _SQUARE_HEADS:
            fits = widths[0] == widths[1]
        elif widths == (192, 128):
            fits = _grouped(op) and ratio % 8 == 0
        elif widths == (320, 256):
            fits = _grouped(op) and ratio % 32 == 0
        else:
            fits = widths in ((512, 512), (576, 512)) and _grouped(op)
        if not fits or not {key.type, value.type} <= self._attended:
            return False
        return not op.src[3] or source(op, 3).ne[2] == 1

    def _attention_copies_bytes(self, op: Tensor, size_bytes: int) -> int:
        """Room behind a result of `size_bytes` for keys and values turned into f16, which the
        kernels for prompts need of other types (`ggml_cuda_flash_attn_ext_get_f16_extra_data`)."""
        query, key, value = source(op, 0), source(op, 1), source(op, 2)
        if query.ne[1] == 1 and query.ne[0] <= 256 and query.ne[0] % 64 == 0:
            return 0  # the vector kernel reads them as they are
        end = size_bytes
        if key.type != self._f16:
            end += -end % 128 + 2 * _elements(key)
        shared = value.view_src and (
            value.view_src == op.src[1]
            or (value.view_src == key.view_src and value.view_offs == key.view_offs)
        )
        if value.type != self._f16 and not shared:
            end += -end % 128 + 2 * _elements(value)
        return end - size_bytes


def _names(name: Callable[[int], bytes | None], count: int) -> list[str]:
    return [(name(number) or b"").decode(errors="replace") for number in range(count)]


def _elements(tensor: Tensor) -> int:
    return int(tensor.ne[0] * tensor.ne[1] * tensor.ne[2] * tensor.ne[3])


def _grouped(op: Tensor) -> bool:
    """Whether the attention kernels take the queries of one key head together."""
    query, key = source(op, 0), source(op, 1)
    ratio = query.ne[2] // key.ne[2]
    return bool(
        ratio >= 2 and op.src[3] and op.op_params[1] == 0 and key.ne[1] % _CELLS_STRIDE == 0
    )


def _scan(op: Tensor) -> bool:
    state = source(op, 0)
    if source(op, 3).ne[0] == 1:
        return state.ne[0] in (96, 128, 256) and state.ne[1] % 16 == 0
    shape = (state.ne[0], state.ne[1], state.ne[2] % 128, source(op, 4).ne[1])
    return bool(op.op_params[0] <= 1 and shape == (16, 1, 0, 1))
