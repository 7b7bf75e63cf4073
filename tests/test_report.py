"""segkit report: val's numbers, a page that needs nothing else, and what it says in a browser."""

from __future__ import annotations

import builtins
import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from segkit import io
from segkit.cli import main as cli
from segkit.report import charts, history, plots
from segkit.report.panels import chosen, error_map
from tests.chromium import Chromium, find_chromium
from tests.tiny import make_data, tiny_config

NAMES = ["ground", '<b>"square" & $x$</b>']
THREE = ["background", "square", "a very long name of a class"]


def trained(folder: Path, names: list[str] = NAMES) -> Path:
    """A run folder of a few iterations on squares, its second class named to provoke."""
    config = tiny_config(make_data(folder / "data", train=4, val=4, classes=len(names)), folder / "c.yml", iters=4)
    data = yaml.safe_load(config.read_text(encoding="utf-8"))
    for part in ("train_dataset", "val_dataset"):
        data[part].update(class_names=names, num_classes=len(names))
    config.write_text(yaml.safe_dump(data), encoding="utf-8")
    out = folder / "run"
    assert (
        command("train", "--config", config, "--save_dir", out, "--do_eval", "--log_iters", 1, "--save_interval", 2)
        == 0
    )
    return out


def command(*argv: object) -> int:
    return cli.main([*map(str, argv), "--device", "cpu", "--num_workers", "0", "--quiet"])


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return trained(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(run) -> Path:
    assert command("report", "--model_path", run, "--images", 3) == 0
    return run / "report" / "report.html"


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Path:
    """The page that compares two checkpoints of one run of three classes."""
    folder = tmp_path_factory.mktemp("three")
    run = trained(folder, THREE)
    assert command("report", run / "iter_2", run / "iter_4", "--save_dir", folder / "both") == 0
    return folder / "both" / "report.html"


def data_of(page: Path) -> dict:
    return json.loads(re.search(r"id=data>(.*?)</script>", page.read_text(encoding="utf-8"), re.DOTALL)[1])


def test_the_numbers_are_vals(run, page, tmp_path) -> None:
    assert command("val", "--model_path", run, "--save_dir", tmp_path) == 0
    assert (page.parent / "metrics.json").read_bytes() == (tmp_path / "metrics.json").read_bytes()
    metrics = json.loads((tmp_path / "metrics.json").read_bytes())
    text = page.read_text(encoding="utf-8")
    for value in (metrics["mIoU"], metrics["Kappa"], *metrics["class_iou"], *metrics["class_recall"]):
        assert f"{value:.4f}" in text
    assert data_of(page)["matrix"] == metrics["confusion_matrix"]
    assert "UNet, 53,198 parameters" in text  # as training said, without BatchNorm's running values


def test_the_page_needs_nothing_and_escapes_names(page) -> None:
    text = page.read_text(encoding="utf-8")
    addresses = re.findall(r'(?:src|href)="?([^"\s>]+)', text.split("<script")[0])
    assert addresses and all(address.startswith(("data:image/", "#")) for address in addresses)
    assert "<b>&quot;" not in text and NAMES[1] not in text
    assert "&lt;b&gt;&quot;square&quot; &amp; $x$&lt;/b&gt;" in text
    assert data_of(page)["names"] == NAMES
    assert len(page.read_bytes()) < 400_000


def test_curves_are_those_of_the_log(run, page) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    charts = data_of(page)["charts"]
    assert charts[0]["series"][0]["x"] == [1, 2, 3, 4]
    np.testing.assert_allclose(charts[0]["series"][0]["y"], losses, rtol=1e-4)
    scores = [row["mIoU"] for row in rows if row["kind"] == "eval"]
    np.testing.assert_allclose(charts[1]["series"][0]["y"], scores, rtol=1e-4)


def test_the_page_says_how_the_weights_were_trained(run, page) -> None:
    best = json.loads((run / "best_model" / "trainer.json").read_text(encoding="utf-8"))
    text = page.read_text(encoding="utf-8")
    trained_on = best["trained_on"][0]
    assert f"<dt>trained<dd>to iteration {best['iteration']} of 4 on {trained_on}, in " in text
    assert f"<dt>evaluated<dd>on {trained_on}, in " in text
    assert f"<dt>weights<dd>{run / 'best_model' / 'model.pdparams'}" in text
    assert "This model has two output channels" in text and "chosen on these very photos" in text


def test_two_checkpoints_of_one_run(both) -> None:
    """One line for both, and where each of them is; a checkpoint's own page marks it too."""
    text, drawn = both.read_text(encoding="utf-8"), data_of(both)["charts"]
    assert [[line["name"] for line in chart["series"]] for chart in drawn] == [["A and B"], ["A and B"]]
    assert "A (iteration 2)" in text and "B (iteration 4)" in text
    course = history.read(both.parents[1] / "run" / "metrics.jsonl", 2)
    assert 0 < course["own_seconds"] < course["seconds"]
    loss = plots.training(course, THREE, 2)[0]
    assert [mark.name for mark in loss.marks] == ["these weights (iteration 2)"]
    assert charts.draw(loss)[0].count("stroke-dasharray") == 1
    assert not plots.training(course, THREE, 4)[0].marks
    other = {**course, "began": [[iteration, 1.0] for iteration, _ in course["began"]]}
    assert history.same(course, course) and not history.same(course, other)


def test_parts_of_the_loss_are_drawn(tmp_path) -> None:
    rows = [{"kind": "train", "iter": n, "loss": 3.0, "loss_dice": 1.0, "lr": 0.1, "ips": 5} for n in (10, 20)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    drawn = plots.training(history.read(tmp_path / "metrics.jsonl"), ["a"])
    assert [[line.name for line in chart.series] for chart in drawn] == [["loss", "loss_dice"], ["lr"], ["ips"]]


def test_long_courses_are_averaged(tmp_path) -> None:
    lines = [json.dumps({"kind": "train", "iter": 10 * n, "loss": n, "batch_cost": 0.5}) for n in range(1, 1201)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"kind": "train", "it']), encoding="utf-8")
    found = history.read(history.find(str(tmp_path / "best_model")))
    assert found["seconds"] == pytest.approx(6000)
    assert found["train"]["iter"][:2] == [30, 60] and found["train"]["loss"][:2] == [2, 5]
    assert len(found["train"]["loss"]) == 400


@pytest.mark.parametrize("values", [[0.30684, 0.30685, 0.306851], [6e-5, 5e-5, 1e-5], [3.0, 3.0], [0.0, 0.0]])
def test_axes_say_whole_numbers(values) -> None:
    """Small steps and small numbers: what stands at the axis are the values, with no sum or factor beside it."""
    svg, data = charts.draw(charts.Chart("mIoU", "iteration", "y", [charts.Series("a", range(len(values)), values)]))
    marks = [float(text.replace("\u2212", "-")) for text in re.findall(r"<text[^>]*>([-\u2212\d.e]+)</text>", svg)]
    low, high = data["ylim"]
    assert low <= min(values) and max(values) <= high and high > low
    assert len(marks) == len(re.findall(r"<text", svg)) - 2, "beside numbers only the names of the axes"
    assert sum(low <= mark <= high for mark in marks) >= 2


def test_which_photos_are_shown() -> None:
    """Class 1 is right in a share of 0.0, 0.1, ... 0.9 of its pixels; class 2 is in photo 7 alone."""
    images = [{"counts": [[90, n, 0], [100 - n, n, 0], [90, 10, 0]]} for n in range(10)]
    images[7]["counts"] = [[90, 7, 0], [93, 7, 0], [90, 7, 3]]
    shown = chosen(images, 3)
    assert {0, 1, 7, 9} <= set(shown) and len(shown) == len(set(shown)) <= 9
    assert chosen([], 3) == []


def test_error_maps() -> None:
    label = np.array([[0, 0, 1, 1, 255]], np.uint8)
    mask = np.array([[0, 1, 0, 1, 1]], np.uint8)
    assert error_map(mask, label, 255, 2).tolist() == [[0, 2, 1, 0, 4]]
    assert error_map(mask, label, 255, 3).tolist() == [[0, 3, 3, 0, 4]]


def test_two_runs_are_compared(run, page, tmp_path, capsys) -> None:
    out = tmp_path / "both"
    before = (run / "report" / "report.json").stat().st_mtime_ns
    argv = ("report", run / "iter_2", run, "--save_dir", out, "--json")
    assert command(*argv) == 0
    found = json.loads(capsys.readouterr().out)
    assert (run / "report" / "report.json").stat().st_mtime_ns == before, "it was there, and is not made again"
    scores = [json.loads((run / name / "metrics.json").read_bytes())["mIoU"] for name in ("report_iter_2", "report")]
    assert [found["mIoU"]["first"], found["mIoU"]["second"]] == pytest.approx(scores)
    assert found["images"] == 4 and len(found["classes"]) == 2
    text = (out / "report.html").read_text(encoding="utf-8")
    assert f"{scores[0]:.4f}" in text and f"by {abs(found['mIoU']['delta']):.4f}" in text
    assert NAMES[1] not in text and "prediction B" in text
    assert command(*argv, "--aug_eval", "--flip_horizontal") == 0
    mirrored = json.loads((run / "report" / "report.json").read_bytes())["of"]["flags"]
    assert mirrored["flip_horizontal"] is True, "other flags are another evaluation"
    assert command(*argv) == 0
    capsys.readouterr()
    again = ("report", run / "report_iter_2", run / "report", "--save_dir", tmp_path / "again", "--json")
    assert command(*again) == 0
    assert json.loads(capsys.readouterr().out)["mIoU"] == found["mIoU"]


def test_other_data_are_another_evaluation(tmp_path, capsys) -> None:
    """A report is taken as it is only while the list, the photos and the labels are those that it is of."""
    run = trained(tmp_path)
    argv = ("report", run / "iter_2", run, "--save_dir", tmp_path / "both", "--json")
    assert command(*argv) == 0
    lines = (tmp_path / "data" / "val.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "data" / "val.txt").write_text("".join(lines[:0:-1]), encoding="utf-8")
    reports = (run / "report_iter_2", run / "report")
    assert command("report", *reports, "--save_dir", tmp_path / "old") == 2
    assert (
        "images/004.png: it was evaluated, but is not in the list of val_dataset any more." in capsys.readouterr().err
    )
    assert command(*argv) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 3
    first = lines[3].split()[1]
    label = io.read_label(tmp_path / "data" / first)
    io.write_png(tmp_path / "data" / first, 1 - label)
    assert command("report", *reports, "--save_dir", tmp_path / "old") == 2
    assert "images/007.png: its label is not the one that was evaluated." in capsys.readouterr().err
    assert command(*argv) == 0
    found = json.loads((run / "report" / "report.json").read_bytes())["images"][0]
    assert found["path"] == "images/007.png" and found["counts"][2][0] == int(label.sum())


def test_panels_are_of_their_own_photos(tmp_path) -> None:
    """Two reports as they are, and a list in another order since: the label that is shown is still the photo's."""
    run = trained(tmp_path)
    assert command("report", run / "iter_2", run, "--save_dir", tmp_path / "both") == 0
    before = (tmp_path / "both" / "report.html").read_text(encoding="utf-8")
    lines = (tmp_path / "data" / "val.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "data" / "val.txt").write_text("".join(lines[::-1]), encoding="utf-8")
    assert command("report", run / "report_iter_2", run / "report", "--save_dir", tmp_path / "both") == 0
    after = (tmp_path / "both" / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"<article.*?</article>", before) == re.findall(r"<article.*?</article>", after) != []


def test_what_cannot_be_compared(run, page, tmp_path, capsys) -> None:
    whole = json.loads((page.parent / "report.json").read_text(encoding="utf-8"))
    changes = {
        "names": (
            ("metrics", {**whole["metrics"], "class_names": ["ground", "round"]}),
            "its classes are not those of",
        ),
        "photos": (("images", [{**item, "path": "x"} for item in whole["images"]]), "evaluated on other photos"),
        "labels": (
            ("images", [{**item, "counts": [[0, 0]] * 3} for item in whole["images"]]),
            "its labels were others",
        ),
        "empty": (("images", None), "no report's data (KeyError: 'images')"),
        "pictures": (("images", whole["images"]), "masks.zip: cannot be read"),
    }
    for name, ((key, value), message) in changes.items():
        folder = tmp_path / name
        folder.mkdir()
        changed = {**whole, key: value}
        if value is None:
            del changed[key]
        (folder / "report.json").write_text(json.dumps(changed), encoding="utf-8")
        assert command("report", page.parent, folder, "--save_dir", tmp_path / "out") == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv, message",
    [
        (("--use_multilabel",), "segkit report shows one class a pixel (got use_multilabel). Use segkit val"),
        (("--images", "-1"), "--images: got -1, expected at least 0."),
        (("a",), "segkit report: got a, "),
        (("a", "b", "c"), "expected two run folders to compare, such as output/a output/b"),
    ],
)
def test_mistakes(run, argv, message, capsys) -> None:
    assert command("report", "--model_path", run, "--save_dir", run / "other", *argv) == 2
    assert message in capsys.readouterr().err


def test_without_matplotlib_the_extra_is_named(run, monkeypatch, capsys) -> None:
    real = builtins.__import__

    def absent(name, *rest, **named):
        if name.partition(".")[0] == "matplotlib":
            raise ImportError("No module named 'matplotlib'")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", absent)
    assert command("report", "--model_path", run) == 2
    assert "Install it: pip install matplotlib" in capsys.readouterr().err


needs_browser = pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed: no page is tested")
widths = pytest.mark.parametrize("width, dark", [(1280, False), (390, True)], ids=["desktop", "phone"])


@contextlib.contextmanager
def opened(page: Path, folder: Path, width: int, dark: bool) -> Iterator[Chromium]:
    """A browser of that width with the page, which must not scroll sideways and must leave no error."""
    with Chromium(folder / "profile") as browser:
        browser.look(width, 844, dark)
        browser.go(page.as_uri())
        assert browser.run("document.documentElement.scrollWidth <= innerWidth"), "scrolls sideways"
        yield browser
        assert browser.errors == []


@needs_browser
@widths
def test_in_a_browser(page, tmp_path, width, dark) -> None:
    with opened(page, tmp_path, width, dark) as browser:
        assert NAMES[1] in browser.run("document.querySelector('#confusion').innerText")
        browser.run("document.querySelector('.chart').focus()")
        browser.press("End")
        assert browser.run("document.querySelector('.chart output').textContent").startswith("iteration 4: loss ")
        first = "document.querySelector('#panels article').innerText"
        worst = browser.run(first)
        browser.run("order.value = -1; order.onchange()")
        assert browser.run(first) != worst
        browser.run("document.querySelector('.pics').click()")
        assert browser.run("zoom.open && zoom.querySelectorAll('img').length") == 5
        browser.run("document.querySelectorAll('table.sortable button')[1].click()")
        values = browser.run("[...document.querySelectorAll('table.sortable td:nth-child(2)')].map(c => +c.dataset.v)")
        assert values[:2] == sorted(values[:2], reverse=True)


@needs_browser
@widths
def test_a_comparison_in_a_browser(both, tmp_path, width, dark) -> None:
    """Three classes and six pictures a photo: the table, what sorts it and the panels, and the keys of the zoom."""
    with opened(both, tmp_path, width, dark) as browser:
        column = "[...document.querySelectorAll('table.sortable tbody td:nth-child(2)')]"
        assert browser.run(f"{column}.every(cell => cell.getBoundingClientRect().right <= innerWidth)"), "cut off"
        browser.run("document.querySelectorAll('table.sortable button')[1].click()")
        values = browser.run(f"{column}.map(cell => +cell.dataset.v)")
        assert len(values) == 3 and values == sorted(values, reverse=True)
        browser.run("by.value = 2; order.value = -1; by.onchange()")
        shown = browser.run(
            "[...panels.children].filter(a => !a.hidden).map(a => [a.innerText, JSON.parse(a.dataset.scores)[2]])"
        )
        gains = [gain for _, gain in shown]
        assert gains == sorted(gains, reverse=True) and None not in gains
        browser.run("by.value = 0; by.onchange()")
        number = browser.run("panels.children.length")
        assert number > 1
        browser.run("document.querySelector('.pics').click()")
        assert browser.run("zoom.open && zoom.querySelectorAll('figure').length") == 6
        titles = [browser.run("zoom.querySelector('h3').innerText")]
        for _ in range(number):
            browser.press("ArrowRight")
            titles.append(browser.run("zoom.querySelector('h3').innerText"))
        assert len(set(titles)) == number and titles[0] == titles[-1], "each photo in turn, and the first again"
        seen = "[...zoom.querySelectorAll('figure')].filter(f => f.offsetWidth).map(f => f.innerText)"
        browser.run("zoom.querySelectorAll('figure')[2].focus()")
        browser.press("Enter", "ArrowLeft")
        assert browser.run(seen) == ["prediction A"], "alone, also of the next photo"
        browser.press("Enter")
        assert len(browser.run(seen)) == 6
        browser.run("[...zoom.querySelectorAll('button')].at(-1).click()")
        assert browser.wait("!zoom.open && document.activeElement.className == 'pics six'"), "back where one was"
