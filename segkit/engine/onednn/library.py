"""oneDNN as every Paddle wheel for Linux brings it (libdnnl.so.3), reached through ctypes.

Constants are those of oneDNN's C interface, stable within major version 3
(https://oneapi-src.github.io/oneDNN/v3.6/, dnnl_types.h and dnnl_common_types.h).
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from contextlib import contextmanager
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_int64, c_size_t, c_uint, c_void_p
from pathlib import Path
from typing import Iterator, Sequence

import paddle

from segkit.dist import local_ranks
from segkit.runtime import ONEDNN, no_onednn, physical_cores

BF16, F32, S32 = 2, 3, 4  # dnnl_data_type_t
ANY, PLAIN = 1, {1: 2, 4: 5, 5: 6}  # dnnl_format_tag_t: free choice; a, abcd, abcde by number of dimensions
BLOCKED = {8: 102, 16: 78}  # dnnl_format_tag_t: aBcd8b, aBcd16b
FORWARD_TRAINING = 64  # dnnl_prop_kind_t
CONVOLUTION_DIRECT, DECONVOLUTION_DIRECT = 1, 10  # dnnl_alg_kind_t
RESAMPLING_LINEAR, LOG_SOFTMAX, RELU_BY_OUTPUT, POOLING_MAX = 0x2FFF1, 0x30001, 0x100, 0x1FF
SRC, DST, WEIGHTS, BIAS = 1, 17, 33, 41  # DNNL_ARG_*
DIFF_SRC, DIFF_DST, DIFF_WEIGHTS, DIFF_BIAS, WORKSPACE = 129, 145, 161, 169, 64
MEAN, VARIANCE, SCALE, SHIFT, DIFF_SCALE, DIFF_SHIFT = 49, 50, 51, 52, 255, 256
BACKWARD = 128  # dnnl_prop_kind_t
USE_SCALE_AND_SHIFT, FUSE_NORM_RELU = 0x2 | 0x4, 0x8  # dnnl_normalization_flags_t
QUERY_IMPLEMENTATION = 8  # dnnl_query_t
SCRATCHPAD, SCRATCHPAD_BY_USER, QUERY_SCRATCHPAD = 80, 1, 136
QUERY_SRC, QUERY_DIFF_SRC, QUERY_WEIGHTS, QUERY_DIFF_WEIGHTS, QUERY_DST, QUERY_DIFF_DST = 129, 130, 131, 132, 133, 134
QUERY_WORKSPACE = 135
ISA_AVX512, ISA_AVX512_BF16, ISA_AMX = 0x27, 0xE7, 0xFEF  # dnnl_cpu_isa_t: sets of bits, each holding those before it


class Unavailable(Exception):
    """oneDNN cannot be used here; the message is the reason."""


class OneDNNError(RuntimeError):
    """A call of the library failed."""


class _Version(ctypes.Structure):
    _fields_ = [
        ("major", c_int),
        ("minor", c_int),
        ("patch", c_int),
        ("hash", c_char_p),
        ("cpu_runtime", c_uint),
        ("gpu_runtime", c_uint),
    ]


_SIGNATURES = {
    "dnnl_version": (POINTER(_Version), []),
    "dnnl_engine_create": (c_int, [c_void_p, c_int, c_size_t]),
    "dnnl_stream_create": (c_int, [c_void_p, c_void_p, c_uint]),
    "dnnl_get_effective_cpu_isa": (c_int, []),
    "dnnl_memory_desc_create_with_tag": (c_int, [c_void_p, c_int, c_void_p, c_int, c_int]),
    "dnnl_memory_desc_create_with_strides": (c_int, [c_void_p, c_int, c_void_p, c_int, c_void_p]),
    "dnnl_memory_desc_create_submemory": (c_int, [c_void_p, c_void_p, c_void_p, c_void_p]),
    "dnnl_memory_desc_get_size": (c_size_t, [c_void_p]),
    "dnnl_memory_desc_equal": (c_int, [c_void_p, c_void_p]),
    "dnnl_memory_desc_destroy": (c_int, [c_void_p]),
    "dnnl_memory_create": (c_int, [c_void_p, c_void_p, c_void_p, c_void_p]),
    "dnnl_memory_set_data_handle": (c_int, [c_void_p, c_void_p]),
    "dnnl_memory_destroy": (c_int, [c_void_p]),
    "dnnl_primitive_desc_query": (c_int, [c_void_p, c_int, c_int, c_void_p]),
    "dnnl_primitive_desc_query_md": (c_void_p, [c_void_p, c_int, c_int]),
    "dnnl_primitive_desc_destroy": (c_int, [c_void_p]),
    "dnnl_primitive_create": (c_int, [c_void_p, c_void_p]),
    "dnnl_primitive_execute": (c_int, [c_void_p, c_void_p, c_int, c_void_p]),
    "dnnl_primitive_destroy": (c_int, [c_void_p]),
    "dnnl_primitive_attr_create": (c_int, [c_void_p]),
    "dnnl_primitive_attr_set_scratchpad_mode": (c_int, [c_void_p, c_int]),
    "dnnl_reorder_primitive_desc_create": (c_int, [c_void_p] * 6),
    "dnnl_softmax_forward_primitive_desc_create": (
        c_int,
        [c_void_p, c_void_p, c_int, c_int, c_void_p, c_void_p, c_int, c_void_p],
    ),
    "dnnl_resampling_forward_primitive_desc_create": (c_int, [c_void_p, c_void_p, c_int, c_int, *[c_void_p] * 4]),
    "dnnl_resampling_backward_primitive_desc_create": (c_int, [c_void_p, c_void_p, c_int, *[c_void_p] * 5]),
    "dnnl_eltwise_forward_primitive_desc_create": (
        c_int,
        [c_void_p, c_void_p, c_int, c_int, c_void_p, c_void_p, c_float, c_float, c_void_p],
    ),
    "dnnl_eltwise_backward_primitive_desc_create": (
        c_int,
        [c_void_p, c_void_p, c_int, *[c_void_p] * 3, c_float, c_float, *[c_void_p] * 2],
    ),
    "dnnl_batch_normalization_forward_primitive_desc_create": (
        c_int,
        [c_void_p, c_void_p, c_int, c_void_p, c_void_p, c_float, c_uint, c_void_p],
    ),
    "dnnl_batch_normalization_backward_primitive_desc_create": (
        c_int,
        [c_void_p, c_void_p, c_int, c_void_p, c_void_p, c_void_p, c_float, c_uint, c_void_p, c_void_p],
    ),
    "dnnl_pooling_forward_primitive_desc_create": (c_int, [c_void_p, c_void_p, c_int, c_int, *[c_void_p] * 8]),
    "dnnl_pooling_backward_primitive_desc_create": (c_int, [c_void_p, c_void_p, c_int, *[c_void_p] * 9]),
}
for _kind in ("convolution", "deconvolution"):
    # pd, engine, (prop kind,) algorithm, 3 or 4 descriptors, strides, dilates, padding left, right, (hint,) attributes
    _create = f"dnnl_{_kind}_%s_primitive_desc_create"
    _SIGNATURES[_create % "forward"] = (c_int, [c_void_p, c_void_p, c_int, c_int, *[c_void_p] * 9])
    _SIGNATURES[_create % "backward_data"] = (c_int, [c_void_p, c_void_p, c_int, *[c_void_p] * 9])
    _SIGNATURES[_create % "backward_weights"] = (c_int, [c_void_p, c_void_p, c_int, *[c_void_p] * 10])


def dims(values: Sequence[int]) -> ctypes.Array:
    """`values` as a dnnl_dims_t."""
    return (c_int64 * 12)(*values)


class Library:
    """The loaded library with its engine, its streams, the OpenMP runtimes and the lock round every use of it."""

    def __init__(self, path: Path):
        try:
            self.c = ctypes.CDLL(str(path))
            for name, (result, arguments) in _SIGNATURES.items():
                function = getattr(self.c, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError) as error:
            raise Unavailable(f"{path.name} does not load ({error})") from error
        version = self.c.dnnl_version().contents
        self.version = f"{version.major}.{version.minor}.{version.patch}"
        if version.major != 3:
            raise Unavailable(f"its version is {self.version}, expected 3.x")
        self.isa = self.c.dnnl_get_effective_cpu_isa()
        self.lock = threading.RLock()
        self.threads = thread_count()
        self.engine = c_void_p()
        self.check(self.c.dnnl_engine_create(byref(self.engine), 1, 0), "engine")
        self._streams: list[c_void_p] = []
        self.attributes = self._new_attributes()
        self._openmp = _openmp_runtimes(path.parent)

    @property
    def has_bf16(self) -> bool:
        """Whether this CPU multiplies bf16 numbers (AMX or AVX512-BF16) and oneDNN may use it."""
        return self.isa & ISA_AVX512_BF16 == ISA_AVX512_BF16

    @property
    def block(self) -> int:
        """Channels side by side in the layout for which there are vector kernels."""
        return 16 if self.isa & ISA_AVX512 == ISA_AVX512 else 8

    def stream(self, number: int = 0) -> c_void_p:
        """What primitives are run on: threads at work at the same time take different numbers."""
        while len(self._streams) <= number:
            stream = c_void_p()
            self.check(self.c.dnnl_stream_create(byref(stream), self.engine, 1), "stream")
            self._streams.append(stream)
        return self._streams[number]

    def _new_attributes(self) -> c_void_p:
        """Attributes of every primitive: working memory comes from us.

        The library's own belongs to the thread that made the primitive; another one that runs it would crash.
        """
        attributes = c_void_p()
        self.check(self.c.dnnl_primitive_attr_create(byref(attributes)), "attributes")
        self.check(self.c.dnnl_primitive_attr_set_scratchpad_mode(attributes, SCRATCHPAD_BY_USER), "scratchpad mode")
        return attributes

    def check(self, status: int, what: str) -> None:
        """Raise `OneDNNError` unless `status` means success."""
        if status:
            raise OneDNNError(f"oneDNN: {what}: status {status}")

    @contextmanager
    def threads_set_to(self, number: int) -> Iterator[None]:
        """Within a session: another number of threads, for what is made or run here."""
        self.set_threads(number)
        try:
            yield
        finally:
            self.set_threads(self.threads)

    def set_threads(self, number: int) -> None:
        """OpenMP threads of the kernels that the calling thread starts."""
        for runtime in self._openmp:
            runtime.omp_set_num_threads(number)

    @contextmanager
    def session(self) -> Iterator[None]:
        """Sole use of the library with its number of threads; Paddle's own number is put back afterwards."""
        with self.lock:
            before = [runtime.omp_get_max_threads() for runtime in self._openmp]
            self.set_threads(self.threads)
            try:
                yield
            finally:
                for runtime, number in zip(self._openmp, before):
                    runtime.omp_set_num_threads(number)

    @contextmanager
    def sleeping_threads(self) -> Iterator[None]:
        """Kernel threads of the calling thread sleep when they have nothing to do, unless the user's environment
        says how they wait.

        Intel's OpenMP lets them look for work for 200 ms, in the way of loader workers and of our own threads: on a
        machine shared with others a step of a small U-Net so took 0.43 to 0.49 s of processor time instead of 0.31.
        """
        runtimes = [r for r in self._openmp if hasattr(r, "kmp_set_blocktime")]
        if any(name in os.environ for name in ("KMP_BLOCKTIME", "KMP_LIBRARY", "OMP_WAIT_POLICY")):
            runtimes = []
        before = [r.kmp_get_blocktime() for r in runtimes]
        for runtime in runtimes:
            runtime.kmp_set_blocktime(0)
        try:
            yield
        finally:
            for runtime, milliseconds in zip(runtimes, before):
                runtime.kmp_set_blocktime(milliseconds)

    def implementation(self, descriptor: c_void_p) -> str:
        """Name of the implementation behind a primitive descriptor, such as `jit:avx512_core`."""
        name = c_char_p()
        self.c.dnnl_primitive_desc_query(descriptor, QUERY_IMPLEMENTATION, 0, byref(name))
        return (name.value or b"").decode()


def _openmp_runtimes(folder: Path) -> list[ctypes.CDLL]:
    """The OpenMP runtimes already in the process: Paddle links one, libdnnl may be bound to either."""
    runtimes = []
    for name in (str(folder / "libiomp5.so"), "libgomp.so.1"):
        try:
            runtimes.append(ctypes.CDLL(name, mode=os.RTLD_NOLOAD | os.RTLD_NOW))
        except OSError:
            continue
    return runtimes


def thread_count() -> int:
    """Threads for the convolutions: the user's OMP_NUM_THREADS, else the physical cores shared among the ranks.

    Paddle and its launcher write OMP_NUM_THREADS=1 into the environment by themselves: that is not the user's.
    """
    default = max(1, physical_cores() // local_ranks())
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if not given.isdigit() or int(given) < 1:
        return default
    number = int(given)
    if number not in (1, physical_cores()):
        return number
    return number if "PADDLE_TRAINER_ID" not in os.environ and _set_before_start("OMP_NUM_THREADS") else default


def _set_before_start(name: str) -> bool:
    """Whether the variable came with the process rather than from its own Python code."""
    try:
        entries = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(entry.startswith(name.encode() + b"=") for entry in entries)


@functools.lru_cache(maxsize=1)
def load() -> Library:
    """The library of the installed Paddle; `Unavailable` with the reason where there is none to use."""
    folder = Path(paddle.__file__).parent
    reason = no_onednn(folder)
    if reason:
        raise Unavailable(reason)
    return Library(folder / ONEDNN)
