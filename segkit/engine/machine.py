"""What this machine has for segkit, and what is not as it should be. Imports paddle only where a GPU is counted."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess  # nosec B404 (runs nvidia-smi alone)
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from segkit import __version__, runtime
from segkit.errors import InputError

PACKAGE = Path(__file__).resolve().parents[1]
OPENCV = (
    *("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
)  # they all put their files into one folder, cv2
_FEATURES = {  # as Linux calls them -> as people do
    "avx": "AVX", "avx2": "AVX2", "avx512f": "AVX512", "avx512_vnni": "AVX512-VNNI", "avx512_bf16": "AVX512-BF16",
    "amx_bf16": "AMX-BF16", "amx_int8": "AMX-INT8",
}  # fmt: skip
_OLDEST_PADDLE = 3
_SHARED, _MEMORY, _DISK = 2**30, 2 * 2**30, 2 * 2**30  # bytes below which work is hindered


@dataclass
class Machine:
    """Facts. Bytes are -1 where they cannot be told."""

    python: str = ""
    packages: dict[str, Optional[str]] = field(default_factory=dict)
    """Versions of what segkit needs always; None: not installed."""
    extras: dict[str, dict[str, Optional[str]]] = field(default_factory=dict)
    """Versions of the packages of every extra; None: not installed."""
    opencv: dict[str, str] = field(default_factory=dict)
    """Versions of the packages that bring OpenCV."""
    opencv_error: str = ""
    paddles: dict[str, str] = field(default_factory=dict)
    """Versions of the installed packages of Paddle."""
    paddle: Optional[str] = None
    """Version of the Paddle that would be imported."""
    paddle_cuda: Optional[str] = None
    """The CUDA that it is built for; None: the CPU alone."""
    gpus: list[str] = field(default_factory=list)
    """What nvidia-smi says of each."""
    driver: bool = False
    """Whether there is an NVIDIA driver."""
    gpus_for_paddle: int = 0
    cpu: str = ""
    features: list[str] = field(default_factory=list)
    """Vector units; empty where Linux does not tell."""
    cores: int = 1
    threads: str = ""
    """OMP_NUM_THREADS as the user set it."""
    no_onednn: str = ""
    """Why segkit's fast convolutions on the CPU are not to be had."""
    memory: int = -1
    shared: int = -1
    disk: int = -1
    home_writable: bool = True


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be."""

    what: str
    mend: str


def look() -> Machine:
    """The machine this runs on."""
    needed, extras = requirements()
    folder = _paddle_folder()
    version, cuda = _built(folder) if folder else (None, None)
    facts = runtime.cpu_facts()
    flags = set(facts.get("flags", "").split())
    return Machine(
        python=platform.python_version(),
        packages={name: _version(name) for name in needed},
        extras={extra: {name: _version(name) for name in names} for extra, names in extras.items()},
        opencv={name: found for name in OPENCV if (found := _version(name))},
        opencv_error=_opencv_error(),
        paddles={name: found for name in ("paddlepaddle", "paddlepaddle-gpu") if (found := _version(name))},
        paddle=version,
        paddle_cuda=cuda,
        gpus=_nvidia_smi(),
        driver=runtime.has_nvidia_gpu(),
        gpus_for_paddle=_count_gpus() if cuda else 0,
        cpu=facts.get("model name") or platform.processor() or platform.machine(),
        features=[name for flag, name in _FEATURES.items() if flag in flags],
        cores=runtime.physical_cores(),
        threads=os.environ.get("OMP_NUM_THREADS", ""),
        no_onednn=runtime.no_onednn(folder) if folder else "",
        memory=runtime.available_memory() or -1,
        shared=_free("/dev/shm"),  # nosec B108 (its size is read)
        disk=_free("."),
        home_writable=_writable(runtime.home()),
    )


def problems(machine: Machine) -> list[Problem]:
    """What is not as it should be, the worst first, each with its mend."""
    found = [*_paddle_problems(machine), *_package_problems(machine)]
    if machine.features and "AVX" not in machine.features:
        found.append(Problem("this CPU has no AVX, which Paddle's wheels need", "use another machine"))
    given = machine.threads.split(",")[0]
    if given.isdigit() and 0 < int(given) < machine.cores:
        what = f"OMP_NUM_THREADS={given} leaves {machine.cores - int(given)} of {machine.cores} cores idle"
        found.append(Problem(what, "unset OMP_NUM_THREADS"))
    if machine.no_onednn and not machine.gpus_for_paddle:
        mend = "unset SEGKIT_ONEDNN" if "SEGKIT_ONEDNN" in machine.no_onednn else "train on Linux on x86-64"
        if "libdnnl" in machine.no_onednn:
            mend = f"install Paddle's own wheel: {runtime.CPU_LINE}"
        found.append(Problem(f"training on the CPU is slow without oneDNN: {machine.no_onednn}", mend))
    if 0 <= machine.shared < _SHARED:
        what = f"/dev/shm has {_size(machine.shared)} free, too little for several --num_workers (expected 1 GB)"
        found.append(Problem(what, "enlarge it: docker run --shm-size 8g, or mount -o remount,size=8g /dev/shm"))
    if 0 <= machine.memory < _MEMORY:
        what = f"only {_size(machine.memory)} of memory are free (expected 2 GB)"
        found.append(Problem(what, "close other programs, or train with a smaller --batch_size"))
    if 0 <= machine.disk < _DISK:
        what = f"only {_size(machine.disk)} are free on the disk of {os.getcwd()} (expected 2 GB)"
        found.append(Problem(what, "free space, or give a --save_dir on another disk"))
    if not machine.home_writable:
        what = f"{runtime.home()} cannot be written: pretrained weights are not kept there"
        found.append(Problem(what, "set SEGKIT_HOME to a folder that can"))
    return found


def _paddle_problems(machine: Machine) -> list[Problem]:
    """What is wrong with Paddle, or with it and the GPU."""
    if machine.paddle is None:
        lines = f"On a CPU: {runtime.CPU_LINE}; on an NVIDIA GPU: {runtime.GPU_LINE}"
        return [Problem("PaddlePaddle is not installed; infer and serve work without it", lines)]
    found = []
    line = runtime.GPU_LINE if machine.paddle_cuda else runtime.CPU_LINE
    major = machine.paddle.split(".")[0]
    if major.isdigit() and 0 < int(major) < _OLDEST_PADDLE:  # 0.0.0 is a build of the day
        what = f"Paddle {machine.paddle} is too old (expected {_OLDEST_PADDLE}.0 or newer)"
        found.append(Problem(what, line.replace("install", "install -U", 1)))
    if len(machine.paddles) > 1:
        keep = "paddlepaddle-gpu" if machine.driver else "paddlepaddle"
        line = runtime.GPU_LINE if machine.driver else runtime.CPU_LINE
        what = f"{' and '.join(machine.paddles)} are both installed, in one folder: {keep} alone is wanted here"
        found.append(Problem(what, f"pip uninstall -y {' '.join(machine.paddles)}, then {line}"))
    elif machine.driver and not machine.paddle_cuda:
        what = "this machine has an NVIDIA GPU, but the installed Paddle computes on the CPU only"
        found.append(Problem(what, f"pip uninstall -y paddlepaddle, then {runtime.GPU_LINE}"))
    elif machine.paddle_cuda and not machine.driver:
        what = f"Paddle is built for CUDA {machine.paddle_cuda}, but there is no NVIDIA driver here"
        mend = "install the driver (docker run --gpus all), or take the CPU build: "
        found.append(Problem(what, f"{mend}pip uninstall -y paddlepaddle-gpu, then {runtime.CPU_LINE}"))
    elif machine.paddle_cuda and not machine.gpus_for_paddle:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
        what = f"Paddle, built for CUDA {machine.paddle_cuda}, sees no GPU (CUDA_VISIBLE_DEVICES is {hidden})"
        found.append(Problem(what, "unset CUDA_VISIBLE_DEVICES; if nvidia-smi shows an older CUDA, update the driver"))
    return found


def _package_problems(machine: Machine) -> list[Problem]:
    """Packages that are missing, or in each other's way."""
    found = []
    # Any package of OpenCV will do.
    missing = [
        name for name, version in machine.packages.items() if not version and not (name in OPENCV and machine.opencv)
    ]
    if missing:
        found.append(Problem(f"not installed: {', '.join(missing)}", f"pip install {' '.join(missing)}"))
    if machine.opencv and machine.opencv_error:
        found.append(Problem(*machine.opencv_error.split("\n", 1)))
    if len(machine.opencv) > 1:
        what = f"{' and '.join(machine.opencv)} are both installed and overwrite each other's files"
        mend = f"pip uninstall -y {' '.join(machine.opencv)}; pip install opencv-python-headless"
        found.append(Problem(what, mend))
    return found


def requirements() -> tuple[list[str], dict[str, list[str]]]:
    """Names of the packages that segkit needs always, and of each extra, as setup.py has them.

    Those for other versions of Python are left out.
    """
    setup = PACKAGE.parent / "setup.py"
    if setup.is_file() and (tree := ast.parse(setup.read_text(encoding="utf-8"))):
        values = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
        words = {
            word.arg: word.value for node in ast.walk(tree) if isinstance(node, ast.Call) for word in node.keywords
        }
        needed = ast.literal_eval(words["install_requires"])
        extras = ast.literal_eval(values["EXTRAS"])
        return _names(needed), {extra: _names(lines) for extra, lines in extras.items()}
    lines = importlib.metadata.requires("segkit") or []
    parted: dict[str, list[str]] = {}
    for line in lines:
        extra = re.search(r"extra == ['\"]([\w-]+)", line)
        parted.setdefault(extra.group(1) if extra else "", []).append(line)
    parted.pop("all", None)
    return _names(parted.pop("", [])), {extra: _names(group) for extra, group in parted.items()}


def _names(lines: list[str]) -> list[str]:
    """Of requirements such as `paddle2onnx>=2.0; python_version < '3.13'`, those for this Python."""
    found = []
    for line in lines:
        below = re.search(r"python_version < ['\"](\d+)\.(\d+)", line)
        if below is None or sys.version_info[:2] < (int(below.group(1)), int(below.group(2))):
            found.append(re.match(r"[\w.-]+", line).group())  # type: ignore[union-attr]
    return found


def _version(name: str) -> Optional[str]:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _opencv_error() -> str:
    """Why OpenCV cannot be loaded, and below it the mend; empty where it can."""
    try:
        importlib.import_module("segkit._cv2")
    except InputError as error:
        return str(error).replace(". Install the build that needs no display library:\n  ", "\n")
    return ""


def _paddle_folder() -> Optional[Path]:
    spec = importlib.util.find_spec("paddle")
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None


def _built(folder: Path) -> tuple[str, Optional[str]]:
    """Version of a Paddle and the CUDA it is built for, as its files say: importing it takes a second."""
    try:
        text = (folder / "version" / "__init__.py").read_text(encoding="utf-8")
    except OSError:
        return "unknown", None
    values = dict(re.findall(r"^(\w+) *= *'(.*)'$", text, re.MULTILINE))
    cuda = values.get("cuda_version", "False")
    return values.get("full_version", "unknown"), None if cuda == "False" else cuda


def _nvidia_smi() -> list[str]:
    """Name, memory and driver of each GPU; empty without an NVIDIA driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    asked = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=10)  # nosec B603
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def _count_gpus() -> int:
    runtime.require_paddle()
    import paddle

    return int(paddle.device.cuda.device_count())


def _free(folder: str) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return -1


def _writable(folder: Path) -> bool:
    """Whether the folder, or the nearest that is there above it, can be written."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return os.access(there, os.W_OK)


def _size(value: int) -> str:
    return "unknown" if value < 0 else f"{value / 2**30:.1f} GB"


def rows(machine: Machine) -> dict[str, Any]:
    """Name -> what to show of it."""
    missing = {
        extra: [name for name, version in parts.items() if not version] for extra, parts in machine.extras.items()
    }
    paddle = "not installed"
    if machine.paddle:
        built = f"for CUDA {machine.paddle_cuda}" if machine.paddle_cuda else "for the CPU alone"
        paddle = f"{machine.paddle}, {built} ({' and '.join(machine.paddles) or 'no pip package'})"
    device = f"{machine.gpus_for_paddle} GPUs" if machine.gpus_for_paddle else "CPU"
    return {
        "segkit": f"{__version__} in {PACKAGE.parent}",
        "Python": f"{machine.python} ({sys.executable}), {platform.system()} on {platform.machine()}",
        "paddle": paddle,
        "device": device,
        "GPUs": "; ".join(machine.gpus) or "none",
        "CPU": f"{machine.cpu}, {machine.cores} cores",
        "CPU features": ", ".join(machine.features) or "unknown",
        "oneDNN": machine.no_onednn or ("yes" if machine.paddle else "comes with Paddle"),
        "OMP_NUM_THREADS": machine.threads or "not set (right)",
        "free memory": _size(machine.memory),
        "shared memory": f"{_size(machine.shared)} free",
        "free disk here": _size(machine.disk),
        **{name: version or "not installed" for name, version in {**machine.packages, **machine.opencv}.items()},
        **{
            f"segkit[{extra}]": "missing: " + ", ".join(lacking)
            if lacking
            else ", ".join(f"{name} {version}" for name, version in machine.extras[extra].items())
            for extra, lacking in missing.items()
        },
    }
