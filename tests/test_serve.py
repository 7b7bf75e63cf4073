"""segkit serve as it runs: batches, the queue, health and metrics, connections."""

from __future__ import annotations

import asyncio
import http.client
import io as memory
import json
import re
import socket
import sys
import threading
import time

import numpy as np
import pytest
from fastapi.testclient import TestClient

from segkit.cli.main import main
from segkit.deploy.listening import listen
from segkit.deploy.serve import batching, server
from segkit.deploy.serve.batching import Batcher
from segkit.deploy.serve.limits import Limits, Room
from segkit.deploy.serve.model import named_folders
from segkit.errors import InputError
from tests import serve_cases
from tests.serve_cases import PNG, header_only, make_service, png
from tests.tiny_model import photo

folders = serve_cases.folders
service = serve_cases.service
client = serve_cases.client
model = serve_cases.model


# -- batching and the queue


def test_photos_that_wait_are_run_together():
    sizes, opened = [], threading.Event()

    def engine(batch):
        opened.wait(10)
        sizes.append(batch.shape)
        return batch * 2

    batcher = Batcher(engine, 3, 0.0)
    first = batcher.submit(np.zeros((1, 2, 2)))
    time.sleep(0.05)
    others = [batcher.submit(np.full((1, 2, 2 + number % 2), number)) for number in range(7)]
    opened.set()
    for number, future in enumerate(others):
        np.testing.assert_array_equal(future.result(10), np.full((1, 2, 2 + number % 2), 2 * number))
    first.result(10)
    batcher.close()
    assert [shape[0] for shape in sizes] == [1, 3, 3, 1]
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(np.zeros(1))


def test_large_photos_go_in_smaller_batches(monkeypatch):
    monkeypatch.setattr(batching, "_NUMBERS", 10)
    sizes, opened = [], threading.Event()

    def engine(batch):
        opened.wait(10)
        sizes.append(len(batch))
        return batch

    batcher = Batcher(engine, 8, 0.0)
    futures = [batcher.submit(np.zeros((1, 2, 2))) for _ in range(5)]
    futures += [batcher.submit(np.zeros((1, 4, 4))) for _ in range(2)]
    opened.set()
    for future in futures:
        future.result(10)
    batcher.close()
    assert max(sizes[:-2]) == 2 and sum(sizes[:-2]) == 5 and sizes[-2:] == [1, 1]


def test_room_for_decoded_photos():
    """By pixels, in order; one that is larger than all of the room gets it alone."""
    held, order = [], []

    async def photo_of(room, size):
        async with room.place(size):
            held.append(size)
            order.append(size)
            assert sum(held) <= 10 or held == [20]
            await asyncio.sleep(0.01)
            held.remove(size)

    async def all_of_them():
        room = Room(10)
        waiting = asyncio.ensure_future(photo_of(room, 9))
        given_up = asyncio.ensure_future(photo_of(room, 8))
        await asyncio.sleep(0.001)
        given_up.cancel()
        await asyncio.gather(waiting, *(photo_of(room, size) for size in (6, 6, 20, 1, 2)))

    asyncio.run(all_of_them())
    assert order == [9, 6, 6, 20, 1, 2] and held == []


def test_photos_of_many_bits_weigh_more():
    limits = Limits(1, 10_000, 1, 1, 1)
    buffer = memory.BytesIO()
    np.save(buffer, np.zeros((20, 30, 3), np.uint16))
    deep = header_only(20, 30)[:24] + b"\x10" + header_only(20, 30)[25:]
    assert [limits.check_pixels(data, 3) for data in (png(photo(20, 30)), deep, buffer.getvalue())] == [600, 1200, 1200]


def test_a_batch_waits_only_for_photos_that_come():
    sizes = []
    batcher = Batcher(lambda batch: sizes.append(len(batch)) or batch, 4, 5.0)
    begin = time.monotonic()
    batcher.submit(np.zeros(1)).result(4)
    with batcher.coming():
        with batcher.coming():
            one = batcher.submit(np.zeros(1))
            time.sleep(0.05)
        assert not one.done()
        two = batcher.submit(np.zeros(1))
    one.result(4), two.result(4)
    assert sizes == [1, 2] and time.monotonic() - begin < 4
    batcher.close()


def test_one_photo_does_not_spoil_its_batch():
    opened = threading.Event()

    def engine(batch):
        opened.wait(10)
        if (batch == 3).any():
            raise ValueError("three")
        return batch

    batcher = Batcher(engine, 8, 0.0)
    futures = [batcher.submit(np.array([number])) for number in range(5)]
    opened.set()
    assert [int(future.result(5)[0]) for future in futures if future is not futures[3]] == [0, 1, 2, 4]
    with pytest.raises(ValueError, match="three"):
        futures[3].result(5)
    batcher.close()


def test_a_full_queue(folders):
    made = make_service({"m": folders["fixed"]}, queue=2)
    made.models["m"]._warm.result(60)
    client = TestClient(made.guard)
    with made.admission.photo(0), made.admission.photo(0):
        made.models["m"].batcher.seconds_a_photo = 3.2
        reply = client.post("/predict", content=png(photo(20, 20)), headers=PNG)
    assert reply.status_code == 429 and reply.headers["retry-after"] == "7"
    assert "2 photos are waiting already" in reply.json()["error"]["message"]
    assert client.post("/predict", content=png(photo(20, 20)), headers=PNG).status_code == 200
    made.admission.held = 16 << 20
    reply = client.post("/predict", content=png(photo(20, 20)), headers=PNG)
    assert reply.status_code == 429 and "too many photos are being sent at once" in reply.text
    made.close()


# -- operation


def test_health_and_metrics(client, folders, model):
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()) == (
        200,
        {"ready": True, "models": {"fixed": True, "free": True, "windows": True}},
    )

    def number(line):
        found = re.search(rf"^{re.escape(line)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    right = 'segkit_requests_total{method="POST",route="/v1/models/{name}/predict",status="200"}'
    wrong = 'segkit_requests_total{method="POST",route="/v1/models/{name}/predict",status="400"}'
    photos = 'segkit_photos_total{format="areas",model="free"}'
    before = [number(line) for line in (right, wrong, photos)]
    for body in (png(photo(20, 20)), png(photo(24, 20)), b"x"):
        client.post("/v1/models/free/predict?format=areas", content=body, headers=PNG)
    client.get("/made-up-by-a-stranger")
    assert [number(line) for line in (right, wrong, photos)] == [before[0] + 2, before[1] + 1, before[2] + 2]
    assert number('segkit_batch_photos_count{model="free"}') >= 2 and number("segkit_photos_taken") == 0
    assert "stranger" not in client.get("/metrics").text


def test_readiness_ends_before_the_server_does(client, service):
    service.guard.stopping = True
    try:
        reply = client.get("/readyz")
        assert reply.status_code == 503 and reply.json()["ready"] is False and reply.headers["connection"] == "close"
    finally:
        service.guard.stopping = False


def test_models_and_descriptions(client):
    about = client.get("/v1/models").json()["models"]
    assert [item["name"] for item in about] == ["fixed", "free", "windows"]
    assert client.get("/v1/models/free").json()["input_shape"] == [-1, 3, -1, -1]
    schema = client.get("/openapi.json").json()
    assert "multipart/form-data" in schema["paths"]["/v1/models/{name}/predict"]["post"]["requestBody"]["content"]
    for path in ("/", "/docs"):
        reply = client.get(path)
        assert reply.status_code == 200 and "script-src 'self'" in reply.headers["content-security-policy"]
        assert not re.search(r"(src|href)=\"?(https?:)?//", reply.text), "loads something from elsewhere"
    assert "/v1/models/{name}/predict" in client.get("/docs").text


def test_names_of_models(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "x=y").mkdir()
    assert named_folders([str(tmp_path / "a"), "b=some/where"]) == {"a": str(tmp_path / "a"), "b": "some/where"}
    with pytest.raises(InputError, match=r"two models are called 'a' .*Give them names: a=1 b=2"):
        named_folders(["a=1", "a=2"])
    with pytest.raises(InputError, match=r"'x=y' cannot be a model's name .*NAME="):
        named_folders([str(tmp_path / "x=y")])


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--port", "99999"), "--host 127.0.0.1 --port 99999: cannot be listened on"),
        (("--queue", "0"), "--queue: got 0, expected a number above 0"),
        (("--max_wait_ms", "-1"), "--max_wait_ms: got -1.0, expected a number not below 0"),
    ],
)
def test_wrong_flags(folders, capsys, flags, message):
    assert main(["serve", str(folders["fixed"]), *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_is_not_there_and_a_taken_port(folders, capsys):
    assert main(["serve", "nowhere"]) == 2
    assert "nowhere: there is no such file. Give the deploy.yaml of an exported folder" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", str(folders["fixed"]), "--port", str(taken.getsockname()[1])]) == 2
    assert "Choose another port, or 0 for any that is free" in capsys.readouterr().err


def test_without_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", "x"]) == 2
    assert re.search(
        r"needs the extra serve, .*uvicorn.* Install it: pip install fastapi uvicorn", capsys.readouterr().err
    )


@pytest.fixture
def hurried(service, monkeypatch):
    """A socket's address of a server in a thread that waits 0.3 s for headers."""
    monkeypatch.setattr(server, "_HEADERS", 0.3)
    listening = listen("127.0.0.1", 0)
    running = server._Server(service, 5)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    yield listening.getsockname()
    running.should_exit = True
    thread.join()


def test_an_engine_that_fails_is_not_the_clients_mistake(service, monkeypatch):
    def broken(batch):
        raise RuntimeError("device lost")

    name, model = next(iter(service.models.items()))
    monkeypatch.setattr(model.backend, "_infer", broken)
    client = TestClient(service.guard, raise_server_exceptions=False)
    reply = client.post(f"/v1/models/{name}/predict", content=png(photo(20, 20)), headers=PNG)
    assert reply.status_code == 500 and "device lost" not in reply.text


def test_headers_that_never_end(hurried):
    whole = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
    for first, answers in ((b"", 0), (whole[:30], 0), (whole + whole[:30], 1)):
        connection = socket.create_connection(hurried, timeout=10)
        connection.sendall(first)
        got = b""
        begin = time.monotonic()
        while part := connection.recv(1000):
            got += part
            if first[len(whole) :] and time.monotonic() - begin < 0.25:  # a byte at a time does not help
                time.sleep(0.1)
                connection.sendall(b"x")
        assert got.count(b"200 OK") == answers and time.monotonic() - begin < 5
        connection.close()


def test_a_refused_body_is_read_to_its_end_so_that_the_reply_is_seen(hurried):
    connection = http.client.HTTPConnection(*hurried, timeout=20)
    connection.request("POST", "/predict", bytes(30 << 20), PNG)
    reply = connection.getresponse()
    assert reply.status == 413 and reply.getheader("connection") == "close"
    assert json.load(reply)["error"]["status"] == 413
    connection.close()
    with socket.create_connection(hurried, timeout=10) as asking:  # who asks before sending is told at once
        head = "POST /predict HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n"
        asking.sendall(head.encode())
        assert asking.recv(1000).startswith(b"HTTP/1.1 413")


def test_a_client_that_hangs_up_is_no_error_of_ours(hurried, service):
    def count(status):
        found = re.findall(rf'segkit_requests_total\{{.*status="{status}"\}} (\S+)', service.metrics.text().decode())
        return sum(map(float, found))

    before = count(499), count(500)
    for kind in ("image/png", "multipart/form-data; boundary=x"):
        with socket.create_connection(hurried, timeout=10) as connection:
            head = f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: 1000\r\n\r\n--x\r\n"
            connection.sendall(head.encode())
            time.sleep(0.1)
    end = time.monotonic() + 5
    while count(499) < before[0] + 2 and time.monotonic() < end:
        time.sleep(0.02)
    assert (count(499), count(500)) == (before[0] + 2, before[1])
