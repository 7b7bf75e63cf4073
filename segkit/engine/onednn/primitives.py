"""Descriptors, primitives and reorders of oneDNN as Python objects that free themselves; an LRU cache of them."""

from __future__ import annotations

import ctypes
import weakref
from collections import OrderedDict
from ctypes import byref, c_void_p
from typing import Any, Callable, Hashable, Sequence

import numpy as np
import paddle

from segkit.engine.onednn.library import ANY, DST, PLAIN, QUERY_SCRATCHPAD, SCRATCHPAD, SRC, Library, dims


class _Argument(ctypes.Structure):
    _fields_ = [("argument", ctypes.c_int), ("memory", c_void_p)]


class Descriptor:
    """Shape, data type and layout of a tensor (dnnl_memory_desc_t)."""

    def __init__(self, library: Library, pointer: c_void_p, owner: Any = None):
        """`owner`: the object that the pointer lives in; without one it is freed with this object."""
        self.library, self.pointer, self._owner = library, pointer, owner
        if owner is None:
            _free_with(self, library.c.dnnl_memory_desc_destroy, pointer)

    @classmethod
    def of(
        cls,
        library: Library,
        shape: Sequence[int],
        dtype: int,
        strides: Sequence[int] | None = None,
        free: bool = False,
        tag: int | None = None,
    ) -> Descriptor:
        """Row-major, with `strides` in elements or as `tag` says; `free`: oneDNN chooses the layout."""
        pointer = c_void_p()
        if strides is None:
            tag = ANY if free else tag or PLAIN[len(shape)]
            status = library.c.dnnl_memory_desc_create_with_tag(byref(pointer), len(shape), dims(shape), dtype, tag)
        else:
            status = library.c.dnnl_memory_desc_create_with_strides(
                byref(pointer), len(shape), dims(shape), dtype, dims(strides)
            )
        library.check(status, f"descriptor of {tuple(shape)}")
        return cls(library, pointer)

    def first(self, shape: Sequence[int]) -> Descriptor:
        """The corner of this tensor that has `shape`, with this one's strides."""
        pointer = c_void_p()
        status = self.library.c.dnnl_memory_desc_create_submemory(
            byref(pointer), self.pointer, dims(shape), dims([0] * len(shape))
        )
        self.library.check(status, f"part {tuple(shape)} of a tensor")
        return Descriptor(self.library, pointer)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.library.c.dnnl_memory_desc_get_size(self.pointer)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Descriptor) and bool(
            self.library.c.dnnl_memory_desc_equal(self.pointer, other.pointer)
        )

    __hash__ = None


class Primitive:
    """One operation for fixed shapes. Not for two threads at once: its memory objects are its own."""

    def __init__(self, library: Library, descriptor: c_void_p, stream: int = 0):
        """`descriptor`: a dnnl_primitive_desc_t, owned from here on."""
        self.library, self.descriptor, self._stream = library, descriptor, library.stream(stream)
        _free_with(self, library.c.dnnl_primitive_desc_destroy, descriptor)
        self._memories: list[c_void_p] = []
        self._primitive: c_void_p | None = None
        self._arguments: Any = None

    def finish(self, arguments: Sequence[tuple[int, Descriptor]]) -> None:
        """Create what executes, `run` taking a pointer for each of `arguments` (DNNL_ARG_*, layout)."""
        library = self.library
        scratchpad = self.layout(QUERY_SCRATCHPAD)
        self._scratchpad = scratchpad.size
        if self._scratchpad:
            arguments = [*arguments, (SCRATCHPAD, scratchpad)]
        primitive = c_void_p()
        library.check(library.c.dnnl_primitive_create(byref(primitive), self.descriptor), "primitive")
        _free_with(self, library.c.dnnl_primitive_destroy, primitive)
        self._primitive = primitive
        self._arguments = (_Argument * len(arguments))()
        for slot, (argument, layout) in zip(self._arguments, arguments):
            memory = c_void_p()
            library.check(
                library.c.dnnl_memory_create(byref(memory), layout.pointer, library.engine, None), "memory object"
            )
            _free_with(self, library.c.dnnl_memory_destroy, memory)
            self._memories.append(memory)
            slot.argument, slot.memory = argument, memory

    def layout(self, query: int) -> Descriptor:
        """The layout that oneDNN chose for one of the tensors (QUERY_*)."""
        pointer = self.library.c.dnnl_primitive_desc_query_md(self.descriptor, query, 0)
        return Descriptor(self.library, c_void_p(pointer), owner=self)

    def run(self, *pointers: int) -> None:
        """Execute on these addresses and return when it is done."""
        c = self.library.c
        if self._scratchpad:
            scratchpad = np.empty(self._scratchpad, dtype="uint8")  # Paddle's device is another one in other threads
            pointers = (*pointers, scratchpad.ctypes.data)
        for memory, pointer in zip(self._memories, pointers):
            c.dnnl_memory_set_data_handle(memory, pointer)
        status = c.dnnl_primitive_execute(self._primitive, self._stream, len(self._memories), self._arguments)
        if status:
            self.library.check(status, f"execution of {self.library.implementation(self.descriptor)}")


class Reorder:
    """Copies a tensor from one layout into another; nothing to do where they are the same."""

    def __init__(self, library: Library, source: Descriptor, target: Descriptor, stream: int = 0):
        self.needed = source != target
        self.size = target.size
        if self.needed:
            pointer = c_void_p()
            status = library.c.dnnl_reorder_primitive_desc_create(
                byref(pointer), source.pointer, library.engine, target.pointer, library.engine, library.attributes
            )
            library.check(status, "reorder")
            self._primitive = Primitive(library, pointer, stream)
            self._primitive.finish([(SRC, source), (DST, target)])

    def into(self, source: int, target: int) -> None:
        """Copy between two addresses; only where `needed`."""
        self._primitive.run(source, target)

    def scratch(self) -> paddle.Tensor | None:
        """A buffer for the target, None where the source itself serves."""
        return buffer(self.size) if self.needed else None

    def __call__(self, source: int, scratch: paddle.Tensor | None) -> int:
        """Address of the tensor in the target layout: in `scratch`, or `source` itself."""
        if scratch is None:
            return source
        self.into(source, scratch.data_ptr())
        return scratch.data_ptr()


def created(library: Library, name: str, *arguments: Any) -> c_void_p:
    """A primitive descriptor by the library's function `name`; `arguments` stand between engine and attributes."""
    pointer = c_void_p()
    status = getattr(library.c, name)(byref(pointer), library.engine, *arguments, library.attributes)
    library.check(status, name[len("dnnl_") : -len("_primitive_desc_create")])
    return pointer


def buffer(size: int) -> paddle.Tensor:
    """Uninitialised memory of `size` bytes."""
    return paddle.empty([size], dtype="uint8")


def array(tensor: paddle.Tensor) -> np.ndarray:
    """All numbers of a contiguous float32 tensor on the CPU in a row, without a copy. The tensor must outlive it."""
    return np.ctypeslib.as_array((ctypes.c_float * tensor.size).from_address(tensor.data_ptr()))


def _free_with(holder: object, destroy: Callable[[c_void_p], int], pointer: c_void_p) -> None:
    weakref.finalize(holder, destroy, pointer).atexit = False  # at exit the library itself may already be gone


class Cache:
    """The `limit` values used last. A value dropped here lives on as long as a graph still needs it."""

    def __init__(self, limit: int):
        self.limit = limit
        self._values: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The value of `key`, made by `make` where it is not there. Under the library's lock."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = self._values[key] = make()
        while len(self._values) > self.limit:
            self._values.popitem(last=False)
        return value

    def __len__(self) -> int:
        return len(self._values)

    def clear(self) -> None:
        self._values.clear()
