"""What must be set in the process before paddle is imported. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import io
import itertools
import os
import platform
import shutil
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from segkit.errors import InputError

CPU_LINE = "pip install paddlepaddle"
GPU_LINE = "pip install paddlepaddle-gpu -i https://www.paddlepaddle.org.cn/packages/stable/cu126/"

ONEDNN = Path("libs", "libdnnl.so.3")  # in Paddle's folder
MKL_KERNELS = "MKL_DEBUG_CPU_TYPE"  # MKL's variable; 5 is for AVX2


def home() -> Path:
    """Where segkit keeps things between runs: `$SEGKIT_HOME`, or ~/.cache/segkit."""
    return Path(os.environ.get("SEGKIT_HOME") or Path.home() / ".cache" / "segkit")


def physical_cores() -> int:
    """Cores this process may run on, hyper-threads of one core counted once where Linux tells; no more than the CPU
    time that its control group grants (`docker run --cpus`, a limit of Kubernetes)."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    siblings = set()
    for cpu in allowed:
        try:
            with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", encoding="ascii") as file:
                siblings.add(file.read().strip())
        except OSError:
            siblings.add(str(cpu))
    return max(1, min(len(siblings), _granted_cpus() or len(siblings)))


_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_CPU_TIME = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))
"""Control groups, versions 2 and 1: microseconds of CPU time that may be used in a period, and the period."""
_MEMORY = (
    (".", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""The same of memory: folder, files of the limit and the use, and the part of the use that the kernel gives back at
once: files that were read before."""


def _granted_cpus() -> int:
    """How many CPUs' time the control group grants, rounded up; 0: as much as there is."""
    for names in _CPU_TIME:
        try:
            quota, period = " ".join((_CONTROL_GROUPS / name).read_text(encoding="ascii") for name in names).split()
            if int(quota) > 0:  # -1: no limit
                return -(-int(quota) // int(period))
        except (OSError, ValueError):  # absent, or "max": no limit
            continue
    return 0


def available_memory() -> int:
    """Bytes that this process may still take: what Linux calls available, within the limit of its control group.

    0 where that cannot be told.
    """
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            rows = dict(line.split(":", 1) for line in file)
        available = int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 0
    for name, limit, used, cached in _MEMORY:
        folder = _CONTROL_GROUPS / name
        try:
            most, now = (int((folder / file).read_text(encoding="ascii")) for file in (limit, used))
            rows = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
            available = min(available, max(0, most - now + int(rows.get(cached, 0))))
        except (OSError, ValueError):  # absent, or "max": no limit
            continue
    return available


def prepare() -> None:
    """Threads and kernels of the CPU and quiet start-up, before the first `import paddle`.

    Paddle sets `OMP_NUM_THREADS=1` when it is unset, which leaves all but one core idle. The user's own
    values are kept.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(physical_cores()))
    os.environ.setdefault("GLOG_minloglevel", "2")
    _choose_mkl_kernels()
    _quiet_warnings()


def _choose_mkl_kernels() -> None:
    """Paddle's wheels bring an MKL of 2019, which gives a CPU that is not Intel's kernels without AVX: a quarter of the
    speed (docs/measurements.md). It reads the variable at its first product of matrices; a process that has already
    computed some keeps its kernels. On Linux, which tells the CPU."""
    facts = cpu_facts()
    if facts.get("vendor_id") in ("AuthenticAMD", "HygonGenuine") and "avx2" in facts.get("flags", "").split():
        os.environ.setdefault(MKL_KERNELS, "5")


def _quiet_warnings() -> None:
    warnings.filterwarnings("ignore", message=".*ccache.*")
    warnings.filterwarnings("ignore", message="When training, we now always track global mean")


def require_paddle() -> None:
    """Import paddle with the threads set and without its start-up noise.

    Where it is not installed, an `InputError` gives both install lines.
    """
    if "paddle" not in sys.modules:
        if importlib.util.find_spec("paddle") is None:
            raise InputError(f"PaddlePaddle is not installed. On a CPU: {CPU_LINE}. On an NVIDIA GPU: {GPU_LINE}.")
        prepare()
        _import_quietly()
    else:
        _choose_mkl_kernels()
        _quiet_warnings()
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Paddle's handler prints a C++ traceback


def _import_quietly() -> None:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            importlib.import_module("paddle")
    finally:
        for line in said.getvalue().splitlines():
            if "OMP_NUM_THREADS" not in line:  # it advises one thread, which leaves the other cores idle
                print(line, file=sys.stderr)


class _SignalStack(ctypes.Structure):
    """C's `stack_t` on Linux."""

    _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextlib.contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Leave this thread with the alternate signal stack that it had before the block.

    OpenVINO's CPU plugin gives one to the thread that loads it, and gives the memory back when it is unloaded, in
    whatever thread: the next signal, Ctrl-C or SIGTERM, then ends the process with SIGSEGV (seen in 2026.4).
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    libc, before = ctypes.CDLL(None), _SignalStack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(before), None)


def cpu_facts() -> dict[str, str]:
    """What Linux says of the first CPU: "model name", "flags" and so on; empty where it does not tell."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            first = itertools.takewhile(str.strip, file)  # up to the empty line before the next CPU
            rows = [line.split(":", 1) for line in first if ":" in line]
            return {name.strip(): value.strip() for name, value in rows}
    except OSError:
        return {}


def no_onednn(paddle: Path) -> str:
    """Why segkit cannot use the oneDNN of the Paddle in the folder `paddle`; empty where it may.

    `SEGKIT_ONEDNN=0` in the environment turns it off for whole programs, such as the test suite.
    """
    if os.environ.get("SEGKIT_ONEDNN") == "0":
        return "SEGKIT_ONEDNN=0"
    if sys.platform != "linux" or platform.machine().lower() not in ("x86_64", "amd64"):
        return f"made for Linux on x86-64, this is {sys.platform} on {platform.machine()}"
    return "" if (paddle / ONEDNN).is_file() else f"this Paddle brings no {ONEDNN.name}"


def has_nvidia_gpu() -> bool:
    """Whether this machine shows an NVIDIA driver, whatever Paddle was built for."""
    return os.path.exists("/proc/driver/nvidia/version") or shutil.which("nvidia-smi") is not None
