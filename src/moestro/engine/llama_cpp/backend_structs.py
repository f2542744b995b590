"""ggml's tables of functions for buffers and devices (`ggml-backend-impl.h`), as ctypes structs.

Only the layout: a function that is not needed stays a plain pointer, empty. The layouts belong to
`GGML_BACKEND_API_VERSION` 3, the release in `version`.
"""

from __future__ import annotations

from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_bool,
    c_char_p,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_uint8,
    c_void_p,
)
from typing import ClassVar

GetName = CFUNCTYPE(c_void_p, c_void_p)
AllocBuffer = CFUNCTYPE(c_void_p, c_void_p, c_size_t)
GetSize = CFUNCTYPE(c_size_t, c_void_p)
GetAllocSize = CFUNCTYPE(c_size_t, c_void_p, c_void_p)
GetPointer = CFUNCTYPE(c_void_p, c_void_p)
Clear = CFUNCTYPE(None, c_void_p, c_uint8)
Nothing = CFUNCTYPE(None, c_void_p)
OnTwo = CFUNCTYPE(None, c_void_p, c_void_p)
Ask = CFUNCTYPE(c_bool, c_void_p, c_void_p)
GetMemory = CFUNCTYPE(None, c_void_p, POINTER(c_size_t), POINTER(c_size_t))
GetType = CFUNCTYPE(c_int, c_void_p)
InitBackend = CFUNCTYPE(c_void_p, c_void_p, c_char_p)
DeviceAt = CFUNCTYPE(c_void_p, c_void_p, c_size_t)
ProcAddress = CFUNCTYPE(c_void_p, c_void_p, c_char_p)


class BufferTypeTable(Structure):
    """`struct ggml_backend_buffer_type_i`."""

    _fields_: ClassVar = [
        ("get_name", GetName),
        ("alloc_buffer", AllocBuffer),
        ("alloc_buffer_n", c_void_p),
        ("get_alignment", GetSize),
        ("get_max_size", c_void_p),
        ("get_alloc_size", GetAllocSize),
        ("get_alloc_size_n", c_void_p),
        ("is_host", c_void_p),
    ]


class BufferType(Structure):
    """`struct ggml_backend_buffer_type`."""

    _fields_: ClassVar = [("table", BufferTypeTable), ("device", c_void_p), ("context", c_void_p)]


class BufferTable(Structure):
    """`struct ggml_backend_buffer_i`."""

    _fields_: ClassVar = [
        ("free_buffer", c_void_p),
        ("get_base", GetPointer),
        ("init_tensor", c_void_p),
        ("memset_tensor", c_void_p),
        ("set_tensor", c_void_p),
        ("get_tensor", c_void_p),
        ("set_tensor_2d", c_void_p),
        ("get_tensor_2d", c_void_p),
        ("cpy_tensor", c_void_p),
        ("clear", Clear),
        ("reset", c_void_p),
    ]


class Buffer(Structure):
    """`struct ggml_backend_buffer`."""

    _fields_: ClassVar = [
        ("table", BufferTable),
        ("buffer_type", c_void_p),
        ("context", c_void_p),
        ("size", c_size_t),
        ("usage", c_int),
    ]


class StreamTable(Structure):
    """`struct ggml_backend_i`."""

    _fields_: ClassVar = [
        ("get_name", GetName),
        ("free", Nothing),
        ("set_tensor_async", c_void_p),
        ("get_tensor_async", c_void_p),
        ("set_tensor_2d_async", c_void_p),
        ("get_tensor_2d_async", c_void_p),
        ("cpy_tensor_async", c_void_p),
        ("synchronize", Nothing),
        ("graph_plan_create", c_void_p),
        ("graph_plan_free", c_void_p),
        ("graph_plan_update", c_void_p),
        ("graph_plan_compute", c_void_p),
        ("graph_compute", c_void_p),
        ("event_record", OnTwo),
        ("event_wait", OnTwo),
        ("graph_optimize", c_void_p),
    ]


class Stream(Structure):
    """`struct ggml_backend`."""

    _fields_: ClassVar = [
        ("guid", c_void_p),
        ("table", StreamTable),
        ("device", c_void_p),
        ("context", c_void_p),
    ]


class Event(Structure):
    """`struct ggml_backend_event`."""

    _fields_: ClassVar = [("device", c_void_p), ("context", c_void_p)]


class DeviceProps(Structure):
    """`struct ggml_backend_dev_props`; the flags are `struct ggml_backend_dev_caps`."""

    _fields_: ClassVar = [
        ("name", c_char_p),
        ("description", c_char_p),
        ("memory_free", c_size_t),
        ("memory_total", c_size_t),
        ("type", c_int),
        ("device_id", c_char_p),
        ("has_async", c_bool),
        ("has_host_buffer", c_bool),
        ("has_buffer_from_host_ptr", c_bool),
        ("has_events", c_bool),
        ("has_mmap_support", c_bool),
    ]


GetProps = CFUNCTYPE(None, c_void_p, POINTER(DeviceProps))


class DeviceTable(Structure):
    """`struct ggml_backend_device_i`."""

    _fields_: ClassVar = [
        ("get_name", GetName),
        ("get_description", GetName),
        ("get_memory", GetMemory),
        ("get_type", GetType),
        ("get_props", GetProps),
        ("init_backend", InitBackend),
        ("get_buffer_type", GetPointer),
        ("get_host_buffer_type", GetPointer),
        ("buffer_from_host_ptr", c_void_p),
        ("supports_op", Ask),
        ("supports_buft", Ask),
        ("offload_op", Ask),
        ("event_new", GetPointer),
        ("event_free", OnTwo),
        ("event_synchronize", OnTwo),
    ]


class Device(Structure):
    """`struct ggml_backend_device`."""

    _fields_: ClassVar = [("table", DeviceTable), ("registry", c_void_p), ("context", c_void_p)]


class RegistryTable(Structure):
    """`struct ggml_backend_reg_i`."""

    _fields_: ClassVar = [
        ("get_name", GetName),
        ("get_device_count", GetSize),
        ("get_device", DeviceAt),
        ("get_proc_address", ProcAddress),
    ]


class Registry(Structure):
    """`struct ggml_backend_reg`."""

    _fields_: ClassVar = [
        ("api_version", c_int),
        ("table", RegistryTable),
        ("context", c_void_p),
    ]


class Tensor(Structure):
    """`struct ggml_tensor`, read only."""

    _fields_: ClassVar = [
        ("type", c_int),
        ("buffer", c_void_p),
        ("ne", c_int64 * 4),
        ("nb", c_size_t * 4),
        ("op", c_int),
        ("op_params", c_int32 * 16),
        ("flags", c_int32),
        ("src", c_void_p * 10),
        ("view_src", c_void_p),
        ("view_offs", c_size_t),
        ("data", c_void_p),
        ("name", c_uint8 * 64),
        ("extra", c_void_p),
    ]


API_VERSION = 3
"""`GGML_BACKEND_API_VERSION`."""
