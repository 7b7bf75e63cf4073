"""Graphs: how Paddle makes them."""

from __future__ import annotations

import threading
import time

import paddle
from paddle import nn
from paddle.jit.dy2static import program_translator

from segkit.engine.graph import Exported, methods_converted_once, save_graph


def test_a_forward_is_rewritten_once_for_all_layers_of_its_class(tmp_path, monkeypatch):
    class Block(nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2D(3, 3, 3, padding=1)

        def forward(self, x: paddle.Tensor) -> paddle.Tensor:
            return paddle.nn.functional.interpolate(self.body(x), x.shape[2:])

    class Net(nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.LayerList([Block() for _ in range(3)])

        def forward(self, x: paddle.Tensor) -> list[paddle.Tensor]:
            for block in self.blocks:
                x = block(x)
            return [x]

    rewritten = []
    original = program_translator.FunctionCache._convert

    def counted(self, function):
        rewritten.append(function.__qualname__.rpartition(".")[0])
        return original(self, function)

    monkeypatch.setattr(program_translator.FunctionCache, "_convert", counted)
    model = Net()
    save_graph(Exported(model, "none"), tmp_path / "out", [1, 3, -1, -1])
    assert [name for name in rewritten if name in (Block.__qualname__, Net.__qualname__)] == [
        Net.__qualname__,
        Block.__qualname__,
    ]
    x = paddle.randn([1, 3, 9, 11])
    found = paddle.jit.load(str(tmp_path / "out" / "model"))(x)
    assert paddle.allclose(found, model(x)[0], atol=1e-6)


def test_exports_in_threads_leave_paddle_as_it_was():
    before, inside = program_translator.FunctionCache.convert_with_cache, threading.Event()

    def first():
        with methods_converted_once():
            inside.set()
            time.sleep(0.2)

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait()
    with methods_converted_once():
        assert program_translator.FunctionCache.convert_with_cache is not before
        thread.join(0.5)
    thread.join()
    assert program_translator.FunctionCache.convert_with_cache is before


def test_a_paddle_that_has_no_such_cache(monkeypatch):
    monkeypatch.delattr(program_translator, "FunctionCache")
    with methods_converted_once():
        assert paddle.in_dynamic_mode()
