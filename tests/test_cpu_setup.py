"""What training on the CPU sets up and says about it: threads, memory, kernels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

from segkit import runtime
from tests.tiny import make_data, tiny_config


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cpu")
    return tiny_config(make_data(folder / "data"), folder / "config.yml", iters=2)


def start_screen(config: Path, root: Path, out: Path, *flags: str, **environment: str) -> str:
    """What a short training in a process of its own prints."""
    command = [sys.executable, "-m", "segkit", "train", "--config", str(config), "--device", "cpu", *flags]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "MALLOC_"))}
    done = subprocess.run(
        [*command, "--save_dir", str(out), "--num_workers", "0"],
        cwd=root,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_what_the_environment_sets_is_respected_and_said(config: Path, root: Path, tmp_path: Path) -> None:
    said = start_screen(config, root, tmp_path / "out", OMP_NUM_THREADS="3", MALLOC_TRIM_THRESHOLD_="1000000")
    assert "device    cpu, 3 threads, fp32" in said
    assert "memory    freed memory is given back at once, which is slower: the environment sets it" in said
    if "convolutions: oneDNN" in said:
        assert "float32, 3 threads" in said
    else:
        assert "because oneDNN cannot be used here" in said


def test_no_onednn_means_paddles_kernels(config: Path, root: Path, tmp_path: Path) -> None:
    said = start_screen(config, root, tmp_path / "out", "--no_onednn")
    assert "convolutions: Paddle's own kernels, as asked" in said
    assert "convolutions: oneDNN" not in said
    assert "memory    freed memory is " in said


@pytest.mark.parametrize(
    "vendor, flags, given, expected",
    [
        ("AuthenticAMD", "sse4_2 avx avx2 fma", None, "5"),
        ("HygonGenuine", "avx avx2", None, "5"),
        ("AuthenticAMD", "sse4_2 avx", None, None),
        ("GenuineIntel", "avx avx2 avx512f", None, None),
        ("", "", None, None),
        ("AuthenticAMD", "avx avx2", "0", "0"),
    ],
)
@pytest.mark.parametrize("starts", [runtime.prepare, runtime.require_paddle])
def test_amds_processors_get_mkls_kernels_for_avx2(monkeypatch, starts, vendor, flags, given, expected) -> None:
    monkeypatch.setenv(runtime.MKL_KERNELS, given or "")  # so that it is put back after the test
    if given is None:
        monkeypatch.delenv(runtime.MKL_KERNELS)
    monkeypatch.setattr(runtime, "cpu_facts", lambda: {"vendor_id": vendor, "flags": flags} if vendor else {})
    starts()
    assert os.environ.get(runtime.MKL_KERNELS) == expected


def test_products_of_matrices_are_right() -> None:
    """With whatever kernels MKL has chosen here."""
    runtime.require_paddle()
    rng = np.random.default_rng(0)
    for rows, inner, columns in ((1, 1, 1), (3, 129, 17), (65, 64, 33), (200, 300, 100)):
        a, b = (rng.standard_normal(size).astype("float32") for size in ((rows, inner), (inner, columns)))
        found = paddle.matmul(paddle.to_tensor(a), paddle.to_tensor(b)).numpy()
        np.testing.assert_allclose(found, a.astype("float64") @ b.astype("float64"), rtol=1e-4, atol=1e-4)
