"""segkit serve: the masks of predict over HTTP, every format, and whatever strangers send."""

from __future__ import annotations

import http.client
import io as memory
import json
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from pycocotools import mask as coco

from segkit import io
from segkit.cli.main import main
from segkit.deploy.backends import open_backend
from segkit.deploy.infer import segmenter
from segkit.deploy.listening import listen
from segkit.deploy.outputs import full_palette
from segkit.deploy.serve import guard, results, server
from segkit.deploy.serve.app import Service
from segkit.deploy.serve.batching import Batcher
from segkit.deploy.serve.limits import Limits, Refused, header_size
from segkit.deploy.serve.metrics import Metrics
from segkit.deploy.serve.model import ServedModel, named_folders
from segkit.deploy.spec import DeploySpec
from segkit.errors import InputError
from segkit.options import InferOptions, ServeOptions
from segkit.polygons import rings
from tests.tiny_model import PLAIN, make_all, photo, run

PNG = {"content-type": "image/png"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two exported folders: of a fixed size and of any."""
    folder = make_all(tmp_path_factory.mktemp("tiny"))
    fixed, free = folder.parent / "fixed", folder.parent / "any_size"
    assert run("export", "--model_path", folder, "--save_dir", fixed) == 0
    opts = ("--opts", f"val_dataset.transforms={json.dumps(PLAIN)}")
    assert run("export", "--model_path", folder, "--save_dir", free, *opts) == 0
    return {"fixed": fixed, "free": free}


def make_service(folders, queue=256, **changed):
    options = ServeOptions(**changed)
    metrics = Metrics()
    served = {name: ServedModel(name, str(folder), options, metrics, 2) for name, folder in folders.items()}
    return Service(served, Limits(1 << 20, 200_000, queue, 5.0), metrics, 2)


@pytest.fixture(scope="module")
def service(folders):
    made = make_service(folders)
    for model in made.models.values():
        model._warm.result(60)
    yield made
    made.close()


@pytest.fixture
def client(service):
    return TestClient(service.guard)


@pytest.fixture(scope="module")
def model(folders):
    """What infer makes of the same folder."""
    return without_server(folders["fixed"])


def without_server(folder):
    spec = DeploySpec.load(folder)
    return segmenter(spec, open_backend(spec, InferOptions(config=str(folder))))


def png(image):
    return io.encode_png(image)


def header_only(width, height):
    """A small PNG that claims a size."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    made = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


def pixels(body):
    return np.asarray(Image.open(memory.BytesIO(body)))


# -- what comes out


@pytest.mark.parametrize("name", ["fixed", "free"])
def test_masks_are_those_of_infer(client, folders, shared, name):
    photos = sorted((shared / "data" / "cats8" / "images").iterdir(), key=lambda path: np.prod(io.image_size(path)))
    expected = without_server(folders[name]).predict(photos[0])
    reply = client.post(f"/v1/models/{name}/predict", files={"file": photos[0].read_bytes()})
    assert reply.status_code == 200 and reply.headers["content-type"] == "image/png"
    found = Image.open(memory.BytesIO(reply.content))
    np.testing.assert_array_equal(np.asarray(found), expected)
    np.testing.assert_array_equal(found.convert("RGB"), full_palette(None)[expected])


def test_every_format(client, model):
    image = photo(60, 80)
    mask = model.predict(image)
    body = png(image)

    def ask(format):
        reply = client.post(f"/predict?format={format}", content=body, headers=PNG)
        assert reply.status_code == 200 and reply.headers["content-type"] == results.MEDIA[format]
        return reply

    np.testing.assert_array_equal(pixels(ask("mask").content), mask)
    overlay = pixels(ask("overlay").content).astype(float)
    np.testing.assert_allclose(overlay, 0.6 * image + 0.4 * full_palette(None)[mask], atol=1)
    assert np.abs(pixels(ask("overlay_jpeg").content) - overlay).mean() < 25
    areas = ask("areas").json()
    assert (areas["model"], areas["width"], areas["height"]) == ("fixed", 80, 60)
    assert [row["pixels"] for row in areas["classes"]] == [int((mask == number).sum()) for number in range(3)]
    assert sum(row["share"] for row in areas["classes"]) == pytest.approx(1, abs=1e-5)
    assert areas["classes"][1]["name"] == "class 1" and areas["classes"][1]["color"] == [128, 0, 0]
    assert areas["unlabelled"] == {"pixels": 0, "share": 0.0}
    for row in ask("rle").json()["classes"]:
        assert row["segmentation"]["size"] == [60, 80]
        np.testing.assert_array_equal(coco.decode(row["segmentation"]), mask == row["id"])
    shapes = ask("polygons").json()
    assert shapes["type"] == "FeatureCollection"
    for shape in shapes["features"]:
        assert shape["geometry"]["type"] == "MultiPolygon"
        np.testing.assert_array_equal(filled(shape["geometry"]["coordinates"], 60, 80), mask == shape["id"])


def filled(polygons, height, width):
    """The pixels inside closed rings along pixel edges, by the even-odd rule: an independent way back."""
    crossed = np.zeros((height, width), int)
    for ring in (ring for part in polygons for ring in part):
        assert ring[0] == ring[-1]
        for (x0, y0), (x1, y1) in zip(ring, ring[1:]):
            assert (x0 == x1) != (y0 == y1)
            if x0 == x1:
                crossed[min(y0, y1) : max(y0, y1), x0:] += 1
    return crossed % 2 == 1


def test_run_lengths_and_polygons_of_random_planes():
    rng = np.random.default_rng(0)
    planes = [(rng.random(rng.integers(1, 14, 2)) < rng.random()).astype(np.uint8) for _ in range(60)]
    planes += [np.zeros((3, 4), np.uint8), np.ones((5, 2), np.uint8), np.eye(9, dtype=np.uint8)]
    planes.append((np.indices((150, 90)).sum(0) > 120).astype(np.uint8))  # long runs: several characters each
    for plane in planes:
        expected = coco.encode(np.asfortranarray(plane))
        assert results.run_lengths(plane) == {"size": expected["size"], "counts": expected["counts"].decode()}
        np.testing.assert_array_equal(filled(rings(plane), *plane.shape), plane == 1)


def test_simpler_polygons():
    y, x = np.indices((100, 100))
    disc = ((x - 50) ** 2 + (y - 50) ** 2 < 40**2).astype(np.uint8)
    exact, near = rings(disc), rings(disc, 2.0)
    assert len(near[0][0]) < len(exact[0][0]) / 5
    speck = np.zeros((5, 5), np.uint8)
    speck[1:4, 1:4] = 1
    speck[2, 2] = 0
    assert len(rings(speck)[0]) == 2 and rings(speck, 10.0) == []


def test_an_overlay_that_no_jpeg_can_hold():
    image = np.zeros((2, 65_501, 3), np.uint8)
    classes = results.Classes(["a"], full_palette(None), 1)
    with pytest.raises(Refused, match=r"at most 65500 pixels a side \(got 65501x2, .*Ask for format=overlay"):
        results.encode(results.Wanted("overlay_jpeg"), image[..., 0], image, classes, "m")
    assert pixels(results.encode(results.Wanted("overlay"), image[..., 0], image, classes, "m")).shape == image.shape
    most = results.encode(results.Wanted("overlay_jpeg"), image[:, 1:, 0], image[:, 1:], classes, "m")
    assert pixels(most).shape == (2, 65_500, 3)


def test_unlabelled_pixels_and_several_labels():
    classes = results.Classes(["a", "b"], full_palette(None), 2)
    mask = np.array([[0, 1, 255], [255, 255, 1]], np.uint8)
    body = json.loads(results.encode(results.Wanted("areas"), mask, np.zeros((2, 3, 3), np.uint8), classes, "m"))
    assert [row["pixels"] for row in body["classes"]] == [1, 2] and body["unlabelled"]["pixels"] == 3
    planes = np.array([[[1, 1, 0]], [[0, 1, 1]]], np.uint8)
    rows = json.loads(results.encode(results.Wanted("rle"), planes, np.zeros((1, 3, 3), np.uint8), classes, "m"))
    assert [row["pixels"] for row in rows["classes"]] == [2, 2]
    with pytest.raises(Refused, match="several labels a pixel, which one PNG cannot hold"):
        results.encode(results.Wanted("mask"), planes, np.zeros((1, 3, 3), np.uint8), classes, "m")


@pytest.mark.parametrize(
    "accept, format",
    [
        ("", "mask"),
        ("*/*", "mask"),
        ("image/jpeg", "overlay_jpeg"),
        ("image/png;q=0.1, application/json", "areas"),
        ("text/html, application/geo+json;q=0.9, */*;q=0.8", "polygons"),
        ("image/png;q=x, application/json;q=0.2", "areas"),
    ],
)
def test_the_accept_header(accept, format):
    assert results.choose(None, accept) == format


# -- what strangers send


WRONG = [
    (b"", PNG, 400, "the body is empty"),
    (b"hello there", PNG, 400, "not a readable image .*got 11 bytes beginning with"),
    (png(photo(30, 40))[:-200], PNG, 400, "not a readable image"),
    (png(photo(30, 40))[:20], PNG, 400, "not a readable image"),
    (b"\xff\xd8\xff" + bytes(50), PNG, 400, "not a readable image"),
    (b"II*\0" + bytes(50), PNG, 400, "not a readable TIFF"),
    (b"\x93NUMPY\1\0\x10\0{'nonsense': 3}\n", PNG, 400, "not a readable image"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n", PNG, 400, "not a readable image"),
    (header_only(30_000, 30_000), PNG, 413, r"a photo of 30000x30000 pixels is too large \(expected at most 200,000"),
    (header_only(600, 500), PNG, 413, "higher --max_pixels"),
    (bytes(2 << 20), PNG, 413, r"the body is larger than 1 MiB.*--max_body_mb"),
    (b"x=1", {"content-type": "application/json"}, 415, "bodies of the kind 'application/json' are not read"),
    (b"x=1", {"content-type": "multipart/form-data"}, 400, "Missing boundary"),
    (b"nonsense", {"content-type": "multipart/form-data; boundary=a"}, 400, ""),
    (png(photo(30, 40)), {**PNG, "accept": "text/html"}, 406, "none of these kinds is made. Ask for application"),
]


@pytest.mark.parametrize("body, headers, status, message", WRONG, ids=range(len(WRONG)))
def test_refused(client, service, body, headers, status, message):
    reply = client.post("/predict", content=body, headers=headers)
    error = reply.json()["error"]
    assert reply.status_code == error["status"] == status
    assert re.search(message, error["message"]), error
    assert "Traceback" not in reply.text and "segkit/" not in reply.text and "/tmp" not in reply.text
    assert service.admission.taken == service.admission.held == 0
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "method, path, status, message",
    [
        ("GET", "/nothing", 404, "there is nothing at this address"),
        ("GET", "/..%2f..%2fsetup.py", 404, "there is nothing at this address"),
        ("GET", "/page/../server.py", 404, "there is nothing at this address"),
        ("GET", "/predict", 405, "does not take that method"),
        ("POST", "/v1/models/other/predict", 404, r"no model of that name \(there are: fixed, free\)"),
        ("GET", "/v1/models/other", 404, "no model of that name"),
        ("POST", "/predict?format=gif", 400, "format: got 'gif', expected one of mask, overlay"),
        ("POST", "/predict?tolerance=-1", 400, "tolerance: .*greater than or equal to 0"),
    ],
)
def test_wrong_addresses(client, method, path, status, message):
    reply = client.request(method, path)
    error = reply.json()["error"]
    assert reply.status_code == error["status"] == status
    assert re.search(message, error["message"])


def test_a_form_without_a_file(client):
    reply = client.post("/predict", data={"a": "b"})
    assert reply.status_code in (400, 415)
    reply = client.post("/predict", files={"a": (None, "b")})
    assert reply.status_code == 400 and "the form has no file" in reply.json()["error"]["message"]


def test_no_stranger_is_let_in_from_another_site(client):
    reply = client.options("/predict", headers={"origin": "http://other", "access-control-request-method": "POST"})
    assert not any(name.startswith("access-control") for name in reply.headers)
    reply = client.get("/healthz", headers={"origin": "http://other"})
    assert not any(name.startswith("access-control") for name in reply.headers)
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_headers_tell_the_size(tmp_path):
    import tifffile

    assert header_size(png(photo(30, 40))) == (30, 40, 4)
    buffer = memory.BytesIO()
    np.save(buffer, np.zeros((7, 5, 13), np.float32))
    assert header_size(buffer.getvalue()) == (7, 5, 13)
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((50, 7, 5), np.uint16), photometric="minisblack")  # 50 pages
    assert header_size((tmp_path / "a.tif").read_bytes()) == (7, 5, 50)
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((7, 5), np.uint8), tile=(4096, 2048))
    assert header_size((tmp_path / "b.tif").read_bytes())[:2] == (4096, 2048)
    with pytest.raises(Refused, match="a photo of 5x7 pixels and 50 bands is too large"):
        Limits(1, 100, 1, 1).check_pixels((tmp_path / "a.tif").read_bytes(), 3)


def test_an_error_of_ours_is_told_to_the_log_alone(client, service, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("secret in /etc")

    monkeypatch.setattr(service.models["fixed"].segmenter, "prepare", fail)
    said = []
    monkeypatch.setattr(guard.logger, "error", lambda *args, **more: said.append(args))
    reply = client.post("/predict", content=png(photo(20, 20)), headers=PNG)
    assert reply.status_code == 500 and "secret" not in reply.text and "Its log says why" in reply.text
    assert "secret in /etc" in str(said)


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
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "models": {"fixed": True, "free": True}})

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
    assert [item["name"] for item in about] == ["fixed", "free"]
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


# -- a server of its own


class Running:
    """`segkit serve` in a process."""

    def __init__(self, root, log, *argv):
        self.log = log
        with open(log, "w", encoding="utf-8") as file:
            command = [sys.executable, "-m", "segkit", "serve", *map(str, argv), "--port", "0"]
            self.process = subprocess.Popen(command, cwd=root, stderr=file)
        end = time.monotonic() + 90
        while "serving" not in self.text() or "is ready" not in self.text():
            assert self.process.poll() is None and time.monotonic() < end, self.text()
            time.sleep(0.1)
        self.port = int(re.search(r"http://127\.0\.0\.1:(\d+)", self.text())[1])

    def text(self):
        return Path(self.log).read_text(encoding="utf-8")

    def post(self, body, path="/predict", timeout=60, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("POST", path, body, {"Content-Type": "image/png", **headers})
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()


@pytest.fixture
def running(folders, root, tmp_path):
    made = Running(
        root, tmp_path / "log", folders["fixed"], "--max_body_mb", "0.5", "--max_pixels", "1000000", "--timeout", "1.5"
    )
    yield made
    made.process.kill()
    made.process.wait()


def right_answer(status, reply, mask):
    """A batch may round other than a single photo does."""
    return status == 200 and np.mean(pixels(reply) == mask) >= 0.999


def test_200_at_once_and_a_signal_under_load(running, model):
    """A third malformed or huge, all answered, the right ones rightly; then SIGTERM, which loses none."""
    images = [photo(40 + number, 60, number) for number in range(8)]
    right = [(png(image), model.predict(image)) for image in images]
    wrong = [
        (b"junk", 400),
        (right[0][0][:-50], 400),
        (header_only(20_000, 20_000), 413),
        (bytes(1 << 20), 413),
        (b"", 400),
    ]

    def ask(number):
        if number % 3 == 2:
            body, status = wrong[number % len(wrong)]
            return running.post(body)[0] == status
        body, mask = right[number % len(right)]
        return right_answer(*running.post(body), mask)

    with ThreadPoolExecutor(200) as pool:
        assert all(pool.map(ask, range(200)))
    slow = socket.create_connection(("127.0.0.1", running.port))
    slow.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\nContent-Type: image/png\r\n\r\nabc")
    assert b"408" in slow.recv(100)
    slow.close()

    answers, begun = [], threading.Event()

    def load_it():
        while True:
            try:
                status, reply = running.post(right[0][0])
            except ConnectionRefusedError:
                return
            answers.append(right_answer(status, reply, right[0][1]))
            if len(answers) > 30:
                begun.set()

    threads = [threading.Thread(target=load_it) for _ in range(12)]
    for thread in threads:
        thread.start()
    assert begun.wait(30)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(30) == 0
    for thread in threads:
        thread.join(30)
    assert all(answers) and len(answers) > 30
    assert "Traceback" not in running.text() and "stopped, every request was answered" in running.text()
    lines = [line for line in running.text().splitlines() if " POST /predict " in line]
    assert len(lines) == len(answers) + 201


def test_a_second_signal_stops_at_once(running):
    sender = socket.create_connection(("127.0.0.1", running.port))
    sender.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\nContent-Type: image/png\r\n\r\n")
    time.sleep(0.3)
    running.process.send_signal(signal.SIGTERM)
    time.sleep(0.4)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(20) == server.STOPPED
    assert "stopped at once: 1 requests were not answered" in running.text()
    sender.close()
