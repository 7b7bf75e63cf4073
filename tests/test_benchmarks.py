"""The arithmetic and the tables of benchmarks/: no test here measures time."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as door
from benchmarks import deploy, harness


def test_every_table_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert door.main([]) == 0
    said = capsys.readouterr().out
    assert "train_step" in said and "real_data" in said and "train_step_peer" not in said and "harness" not in said
    assert all(line and not line.startswith("`") for line in door.tables().values())


def test_an_unknown_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert door.main(["train_stp"]) == 2
    assert "no table 'train_stp'" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(door.tables()))
def test_every_table_tells_its_flags(name: str, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    with pytest.raises(SystemExit) as ended:
        door.main([name, "--help"])
    assert ended.value.code == 0
    assert f"python -m benchmarks {name}" in capsys.readouterr().out


def test_sides_take_turns() -> None:
    order: list[str] = []

    def side(name: str):
        return lambda: order.append(name) or {"seconds": len(order)}

    results = harness.alternate({"a": side("a"), "b": side("b")}, 2)
    assert order == ["a", "b", "a", "b"]
    assert results == {"a": [{"seconds": 1}, {"seconds": 3}], "b": [{"seconds": 2}, {"seconds": 4}]}


def test_the_ratio_is_taken_within_each_round() -> None:
    slow_then_fast = [{"seconds": [9.0, 10.0, 30.0]}, {"seconds": 1.0}, {"seconds": 3.0}]
    half = [{"seconds": 5.0}, {"seconds": 0.5}, {"seconds": [1.0]}]
    assert harness.medians(slow_then_fast) == [10.0, 1.0, 3.0]
    assert harness.ratio(slow_then_fast, half) == 2.0


@pytest.mark.parametrize(
    "value, text",
    [
        (None, "-"),
        (float("nan"), "-"),
        (0.0, "0"),
        (1.0, "1.00"),
        (0.01234, "0.0123"),
        (98.76, "98.8"),
        (12345.6, "12,346"),
    ],
)
def test_three_digits(value: float | None, text: str) -> None:
    assert harness.digits(value) == text


def test_the_table_of_the_sides() -> None:
    peer = [{"seconds": 4.0, "memory": 1.0, "others": 0.0}, {"seconds": 6.0, "memory": 3.0, "others": 0.5}]
    ours = [{"seconds": 2.0, "others": None}, {"seconds": 2.0, "others": None}]
    assert harness.compared({"peer": peer, "ours": ours}, "peer").splitlines() == [
        "| side | s | spread | peer / this | peak GiB | others' cores |",
        "| --- | --- | --- | --- | --- | --- |",
        "| peer | 5.00 | 4.00-6.00 | 1.00 | 3.00 | 0.25 |",
        "| ours | 2.00 | 2.00-2.00 | 2.50 | - | - |",
    ]


def test_what_others_took() -> None:
    assert harness.taken_by_others(100.0, 112.0, own=8.0, wall=4.0) == 1.0
    assert harness.taken_by_others(100.0, 104.0, own=8.0, wall=4.0) == 0.0  # rounding of the counters
    assert harness.taken_by_others(None, None, own=1.0, wall=1.0) is None


def test_a_child_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GONE", "here")
    code = "import os, json; print('noise'); print(json.dumps({'seconds': 0.5, 'gone': os.environ.get('GONE')}))"
    result = harness.child([sys.executable, "-c", code], {"GONE": None})
    assert result["seconds"] == 0.5 and result["gone"] is None
    assert result["wall"] > 0 and result["memory"] > 0
    plain = harness.child([sys.executable, "-c", "pass"])
    assert plain["seconds"] == plain["wall"]


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory of several processes: Linux")
def test_the_memory_of_a_tree_is_its_processes_together() -> None:
    code = "import subprocess, sys, time\nkept = bytearray(60 << 20)\nfor i in range(0, len(kept), 4096): kept[i] = 1\n"
    both = f"{code}\np = subprocess.Popen([sys.executable, '-c', {code + 'time.sleep(1.5)'!r}])\np.wait()"
    assert harness.child([sys.executable, "-c", both], whole_tree=True)["memory"] * 1024 > 120


def test_a_failing_child_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"ended with 3:\nno data"):
        harness.child([sys.executable, "-c", "import sys; print('no data'); sys.exit(3)"])


def test_a_missing_peer(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--paddleseg needs a Python that has paddleseg; "):
        harness.require_python(None, "paddleseg", "--paddleseg")
    with pytest.raises(SystemExit, match=r"got .*no_python"):
        harness.require_python(str(tmp_path / "no_python"), "torch", "--torch")
    assert harness.require_python(sys.executable, "json", "--any") == sys.executable


def test_json_and_the_missing_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harness.write_json(tmp_path / "new" / "all.json", {"a": [{"seconds": 1}]}, "a machine")
    read = json.loads((tmp_path / "new" / "all.json").read_text())
    assert read == {"machine": "a machine", "results": {"a": [{"seconds": 1}]}}
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit, match="--plot needs matplotlib"):
        harness.bars(tmp_path / "a.png", {"a": [{"seconds": 1.0}]}, "a")
    harness.bars(None, {}, "not asked for")


def test_the_rows_of_the_accuracy_table() -> None:
    from benchmarks.accuracy import rows

    cells = {
        "slow": [{"mIoU": 0.50, "train_seconds": 9.0}, {"mIoU": 0.54, "train_seconds": 11.0}],
        "fast": [{"mIoU": 0.51, "train_seconds": 2.0}],
    }
    assert rows(cells, 2) == [
        ["slow", "0.5000", "0.5400", "0.5200", "0.0400", "+0.0000", 10.0],
        ["fast", "0.5100", "-", "0.5100", "0.0000", "-0.0100", 2.0],
    ]


def test_how_cost_grows_is_a_row_for_each_size() -> None:
    from benchmarks import scaling

    ours = {"seconds": [1.0, 3.0], "memory": 0.5}
    found = scaling.series({
        "segkit: 256": [ours, {"seconds": 4.0, "memory": 0.7}],
        "segkit: 128": [{"seconds": 0.5, "memory": 0.2}],
        "PaddleSeg: 256": [{"seconds": 9.0, "memory": 2.0}],
        "PaddleSeg: 128": [{"seconds": 1.0, "memory": 1.0}],
    })  # fmt: skip
    assert found["segkit"] == [(128, 0.5, 0.5, 0.5, 0.2), (256, 3.0, 2.0, 4.0, 0.7)]
    table = scaling.rows(found)
    assert table[1] == [256, 3.0, "2.00-4.00", 0.7, 9.0, "9.00-9.00", 2.0, "3.0"]
    assert len(scaling.header("size", list(found))) == len(table[0])


def test_a_plot_of_growth(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks import scaling

    scaling.plot(tmp_path / "new" / "a.png", "size", {"segkit": [(128, 1.0, 0.9, 1.2, 0.3), (256, 3.0, 3.0, 3.1, 0.5)]})
    assert (tmp_path / "new" / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_of_models(tmp_path: Path) -> None:
    from benchmarks import models

    row = models.measure({"type": "FastSCNN"}, 64, timed=True)
    assert row["parameters"] > 1_000_000 and row["flops"] > 0 and row["seconds"] > 0
    rows = {"b": {"parameters": 2_500_000, "flops": 3.25e9}, "A": {"error": "took over 300 s"}}
    made = models.table(rows, timed=False)
    assert made.splitlines()[2:] == ["| A | took over 300 s | - |", "| b | 2.50 | 3.2 |"]
    page = f"before\n{models.BEGIN}\nold\n{models.END}\nafter\n"
    once = models.put(page, made)
    assert (
        "old" not in once
        and once.startswith("before\n")
        and once.endswith("after\n")
        and models.put(once, made) == once
    )
    with pytest.raises(SystemExit, match="the page has no place"):
        models.put("nothing", made)


def test_the_rows_of_the_engines() -> None:
    runs = {deploy.PLAIN: [{"seconds": 0.2}, {"seconds": 0.6}], "auto": [{"seconds": 0.1}, {"seconds": 0.2}]}
    made = deploy.table(runs, {deploy.PLAIN: 0.5, "auto": 0.25}, {deploy.PLAIN: 1.0, "auto": 0.99}, "openvino fp32")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in made.splitlines()]
    assert rows[0] == ["engine", "ms", "spread", "peak GiB", "plain Paddle / this", "% of pixels as predict's"]
    assert rows[2] == ["plain Paddle", "400", "200-600", "0.500", "1.00", "100.0000"]
    assert rows[3] == ["auto (took openvino fp32)", "150", "100-200", "0.250", "2.50", "99.0000"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a parent's peak is not counted")
def test_memory_of_a_process_is_its_own() -> None:
    held = bytearray(200 << 20)
    held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])
    code = "import json; from benchmarks import harness; print(json.dumps({'memory': harness.this_process()}))"
    assert 0 < harness.child([sys.executable, "-c", code])["memory"] < 0.19
