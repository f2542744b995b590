"""GPUs that are not there: devices on which the engine plans and nothing is ever computed.

llama.cpp's loader, caches and scheduler ask a device what it can run, how it aligns and pads, and
how much memory it has. Told the same as by its own CUDA backend, they lay a model out over these
devices exactly as they would over real ones. Only sizes come out of it: with `no_alloc` no weight
is read, buffers have no memory (`imaginary`), and no graph is ever run.

What a real device takes beside these buffers (its context, libraries' workspaces, pools for
temporary copies) is not seen here.
"""

from __future__ import annotations

import ctypes
from ctypes import addressof, create_string_buffer
from dataclasses import dataclass
from typing import Any

from moestro.engine.llama_cpp import backend_structs as structs
from moestro.engine.llama_cpp.imaginary import Imaginary
from moestro.engine.llama_cpp.virtual_ops import CudaRules

ALIGNMENT = 128
"""Of tensors in a CUDA buffer."""

OFFLOAD_BATCH = 32
"""Rows from which on a GPU computes with weights that stay in host memory."""

_GPU = 1  # GGML_BACKEND_DEVICE_TYPE_GPU
_OP_OFFSET = structs.Tensor.op.offset


@dataclass(frozen=True, slots=True)
class VirtualDevice:
    """A GPU that is not there. `free_bytes` decides how layers are split among several."""

    name: str
    total_bytes: int
    free_bytes: int


class VirtualDevices:
    """The engine's view of some GPUs. Keep it alive as long as the engine runs."""

    def __init__(
        self, library: ctypes.CDLL, devices: tuple[VirtualDevice, ...], imaginary: Imaginary
    ) -> None:
        self._keep: list[Any] = []
        self._imaginary = imaginary
        self._host = structs.BufferType.from_address(library.ggml_backend_cpu_buffer_type())
        self._rules = CudaRules(library)
        self._several = len(devices) > 1
        self._supports_op = self._make_supports_op()
        self._alloc_size = structs.GetAllocSize(self._rules.alloc_size_function())
        self._registry = self._make_registry()
        self._host_type = self._make_host_type()
        self._by_type: dict[int, int] = {}
        self.addresses = [self._make_device(device) for device in devices]
        self._host_type.device = self.addresses[0] if devices else None

    def _kept(self, thing: Any) -> Any:
        self._keep.append(thing)
        return thing

    def _text(self, text: str) -> int:
        buffer = self._kept(create_string_buffer(text.encode()))
        return addressof(buffer)

    def _make_registry(self) -> int:
        name = self._text("virtual")
        registry = self._kept(structs.Registry(api_version=structs.API_VERSION))
        registry.table.get_name = structs.GetName(lambda _registry: name)
        registry.table.get_device_count = structs.GetSize(lambda _registry: len(self.addresses))
        registry.table.get_device = structs.DeviceAt(lambda _registry, index: self.addresses[index])
        registry.table.get_proc_address = structs.ProcAddress(lambda _registry, _name: None)
        return addressof(registry)

    def _make_host_type(self) -> structs.BufferType:
        """Pinned host memory: as the host's own, under another name."""
        name = self._text("virtual host")
        kind: structs.BufferType = self._kept(structs.BufferType())
        kind.table.get_name = structs.GetName(lambda _type: name)
        kind.table.alloc_buffer = self._imaginary.alloc_buffer
        kind.table.get_alignment = self._host.table.get_alignment
        kind.table.get_alloc_size = self._host.table.get_alloc_size
        kind.table.is_host = self._host.table.is_host
        return kind

    def _make_device(self, description: VirtualDevice) -> int:
        device = self._kept(structs.Device(registry=self._registry))
        address = addressof(device)
        # The engine tells buffer types apart by their names, and two cards may be of one make.
        name = self._text(f"virtual{len(self._by_type)}")
        title = self._text(description.name)
        buffer_type = self._make_buffer_type(name, address)
        self._by_type[buffer_type] = address
        shown = description.name.encode()
        table = device.table

        def memory(_device: int, free: Any, total: Any) -> None:
            free[0], total[0] = description.free_bytes, description.total_bytes

        def props(_device: int, filled: Any) -> None:
            filled[0] = structs.DeviceProps(
                name=shown,
                description=shown,
                memory_free=description.free_bytes,
                memory_total=description.total_bytes,
                type=_GPU,
                has_async=True,
                has_host_buffer=True,
                has_events=True,
                has_mmap_support=True,
            )

        table.get_name = structs.GetName(lambda _device: name)
        table.get_description = structs.GetName(lambda _device: title)
        table.get_memory = structs.GetMemory(memory)
        table.get_type = structs.GetType(lambda _device: _GPU)
        table.get_props = structs.GetProps(props)
        table.init_backend = structs.InitBackend(lambda dev, _params: self._make_stream(dev, name))
        table.get_buffer_type = structs.GetPointer(lambda _device: buffer_type)
        host_type = addressof(self._host_type)
        table.get_host_buffer_type = structs.GetPointer(lambda _device: host_type)
        table.supports_op = self._supports_op
        table.supports_buft = structs.Ask(lambda _device, kind: kind == buffer_type)
        table.offload_op = structs.Ask(self._takes_over)
        event = addressof(self._kept(structs.Event(device=address)))
        table.event_new = structs.GetPointer(lambda _device: event)
        table.event_free = structs.OnTwo(lambda _device, _event: None)
        table.event_synchronize = structs.OnTwo(lambda _device, _event: None)
        return address

    def _make_buffer_type(self, name: int, device: int) -> int:
        kind = self._kept(structs.BufferType(device=device))
        kind.table.get_name = structs.GetName(lambda _type: name)
        kind.table.alloc_buffer = self._imaginary.alloc_buffer
        kind.table.get_alignment = structs.GetSize(lambda _type: ALIGNMENT)
        kind.table.get_alloc_size = self._alloc_size
        return addressof(kind)

    def _make_stream(self, device: int, name: int) -> int:
        stream = self._kept(structs.Stream(device=device))
        stream.guid = addressof(self._kept(create_string_buffer(b"moestro virtual", 16)))
        stream.table.get_name = structs.GetName(lambda _stream: name)
        stream.table.free = structs.Nothing(lambda _stream: None)
        stream.table.synchronize = structs.Nothing(lambda _stream: None)
        stream.table.event_record = structs.OnTwo(lambda _stream, _event: None)
        stream.table.event_wait = structs.OnTwo(lambda _stream, _event: None)
        return addressof(stream)

    def _make_supports_op(self) -> Any:
        """Asked tens of thousands of times for one graph, so it looks nothing up twice."""
        by_op, several, is_elsewhere = self._rules.by_op, self._several, self._is_elsewhere
        number_at = ctypes.c_int.from_address

        def supports_op(device: int, tensor: int) -> bool:
            rule = by_op[number_at(tensor + _OP_OFFSET).value]
            if rule is False or (several and is_elsewhere(device, tensor)):
                return False
            return rule is True or rule(tensor)

        return structs.Ask(supports_op)

    def _is_elsewhere(self, device: int, tensor: int) -> bool:
        """Whether a source lies on another of these devices."""
        for source in structs.Tensor.from_address(tensor).src:
            buffer = structs.Tensor.from_address(source).buffer if source else None
            if buffer:
                kind = structs.Buffer.from_address(buffer).buffer_type
                if self._by_type.get(kind, device) != device:
                    return True
        return False

    def _takes_over(self, _device: int, tensor: int) -> bool:
        return self._rules.batch(structs.Tensor.from_address(tensor)) >= OFFLOAD_BATCH
