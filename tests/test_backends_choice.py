"""The choice among engines: the fastest that agrees, remembered."""

from __future__ import annotations

import itertools
import json
import time
from typing import ClassVar

import numpy as np
import pytest

from segkit.deploy.backends import choice
from segkit.deploy.backends.base import Backend
from segkit.deploy.spec import DeploySpec
from segkit.errors import InputError
from segkit.options import InferOptions
from tests import backend_cases

said = backend_cases.said
short_turns = backend_cases.short_turns


@pytest.fixture
def model(tmp_path):
    (tmp_path / "model.json").write_text("{}")
    return DeploySpec(folder=tmp_path, transforms=[], model="model.json", params="model.json")


class Fake(Backend):
    """An engine of a given speed that says class 0 up to a share of the columns, and class 1 beyond."""

    package = "numpy"
    install = "pip install numpy"
    seconds, share, low_error, broken, wide, a_photo = 0.0, 0.5, 0, False, 1, 0.0
    can: ClassVar[tuple[str, ...]] = ("fp32",)

    def __init__(self, spec, options, tune_on=None):
        super().__init__(spec, options.precision, self.wide)
        if self.broken:
            raise RuntimeError("no such kernel")

    @classmethod
    def file(cls, spec):
        return spec.model

    @classmethod
    def obstacle(cls, spec, options):
        return None if options.precision in (*cls.can, "auto") else f"no {options.precision}"

    def _infer(self, batch):
        low = self.precision != "fp32"
        time.sleep(self.seconds / (4 if low else 1) + self.a_photo * len(batch))
        classes = np.zeros((len(batch), 100, 1000), np.uint8)
        classes[:, :, int(1000 * self.share) + (self.low_error if low else 0) :] = 1
        return classes


def fake(name, **values):
    return type(name, (Fake,), {"name": name, **values})


REMEDY = "Nothing needs to be done while another one runs the model."
SLOW, FAST = fake("slow", seconds=0.04), fake("fast", seconds=0.01)


def test_the_fastest_that_agrees(model, said):
    wrong = fake("wrong", seconds=0.001, share=0.502)
    broken = fake("broken", broken=True)
    assert choice.choose([SLOW, wrong, broken, FAST], model, InferOptions()).name == "fast"
    assert f"engine wrong fp32 is left out: only 99.800 % of a photo's pixels agree with the others'. {REMEDY}" in said
    assert f"engine broken fp32 is left out: no such kernel. {REMEDY}" in said
    near = fake("near", seconds=0.001, share=0.501)
    assert choice.choose([SLOW, near, FAST], model, InferOptions()).name == "near"


def test_the_choice_is_made_anew_when_something_changes(model, said):
    def tried(**options):
        said.clear()
        choice.choose([SLOW, FAST], model, InferOptions(**options), options.pop("tune_on", None))
        return any("fastest" in line for line in said)

    assert tried() and not tried()
    assert tried(cpu_threads=3) and not tried(cpu_threads=3)
    (model.folder / "model.json").write_text("{ }")
    assert tried() and not tried()
    (model.folder / choice.FILE).write_text("no JSON")
    assert tried() and not tried()


def test_engines_that_take_several_batches_side_by_side(model):
    wide = fake("wide", seconds=0.03, wide=6)
    assert choice.choose([FAST, wide], model, InferOptions(hint="throughput")).name == "wide"


def test_photos_are_timed_in_batches(model, said):
    """What is slower with one photo may be faster with four; no more than a million pixels are run at once."""
    batches = fake("batches", seconds=0.03)
    single = fake("single", a_photo=0.012)
    for size, expected, shape in ((1, "single", 1), (4, "batches", 4), (8, "batches", 4)):
        assert choice.choose([batches, single], model, InferOptions(batch_size=size)).name == expected
        assert f"the fastest on [{shape}, 3, 512, 512]" in said[-1] or "as remembered" in said[-1]


def test_the_newest_choices_are_kept(model):
    for number in range(25):
        choice._remember(model, str(number), choice.Trial("slow", "fp32", 1.0, 1.0), [])
    kept = json.loads((model.folder / choice.FILE).read_text())
    assert list(kept) == [str(number) for number in range(5, 25)]


def test_a_race_waits_for_threads_that_spin(model, monkeypatch):
    slept = []
    monkeypatch.setattr(choice.time, "sleep", slept.append)
    ticks = itertools.count()
    monkeypatch.setattr(choice.time, "perf_counter", lambda: float(next(ticks)))
    choice._race([fake("busy", spins=0.25)(model, InferOptions()), FAST(model, InferOptions())], choice.made_up(model))
    assert [seconds for seconds in slept if seconds == 0.25] == [0.25] * 3


def test_a_folder_that_cannot_be_written(model, monkeypatch):
    def refuse(*args):
        raise InputError("cannot be written")

    monkeypatch.setattr(choice, "write_bytes_atomic", refuse)
    assert choice.choose([SLOW, FAST], model, InferOptions()).name == "fast"


@pytest.mark.parametrize("error, expected", [(0, "bf16"), (1, "bf16"), (2, "fp32")])
def test_auto_precision_takes_bf16_where_it_agrees(model, error, expected):
    able = fake("able", seconds=0.02, can=("fp32", "bf16"), low_error=error)
    found = choice.choose([SLOW, able], model, InferOptions(precision="auto"))
    assert (found.name, found.precision) == ("able", expected)
    asked = choice.choose([able], model, InferOptions(precision="bf16"))
    assert asked.precision == "bf16"


def test_auto_precision_looks_at_several_photos(model, said):
    class Able(fake("able", can=("fp32", "bf16"))):
        def _infer(self, batch):
            return np.full((1, 10, 10), self.precision == "bf16" and batch.max() == 2, np.uint8)

    photos = [np.full((1, 3, 8, 8), number, np.float32) for number in range(4)]
    found = choice.choose([Able], model, InferOptions(precision="auto"), photos)
    assert found.precision == "fp32"
    assert f"engine able bf16 is left out: only 0.000 % of a photo's pixels agree with the others'. {REMEDY}" in said
    said.clear()
    choice.choose([Able], model, InferOptions(precision="auto", cpu_threads=1), photos[:2])
    assert not any("left out" in line for line in said)


def test_auto_precision_without_bf16(model, said):
    assert choice.choose([SLOW], model, InferOptions(precision="auto")).precision == "fp32"
    assert "--precision auto: no engine here computes in bf16: float32" in said


def test_no_engine_works(model):
    broken = [fake("a", broken=True), fake("b", broken=True)]
    with pytest.raises(InputError, match="no inference engine can run this model"):
        choice.choose(broken, model, InferOptions())
    with pytest.raises(InputError, match="no inference engine can run this model"):
        choice.choose(broken, model, InferOptions(precision="bf16"))
