"""What segkit serve answers: the masks of predict in every format, and messages to strangers."""

from __future__ import annotations

import io as memory
import json
import re

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from segkit import io
from segkit.deploy.outputs import full_palette
from segkit.deploy.serve import guard, results
from segkit.deploy.serve.limits import Limits, Refused, header_size
from segkit.polygons import rings
from segkit.transforms import Compose
from segkit.transforms.color import Normalize
from segkit.transforms.resize import ResizeByShort
from tests import serve_cases
from tests.serve_cases import PNG, header_only, pixels, png, without_server
from tests.tiny_model import photo

folders = serve_cases.folders
service = serve_cases.service
client = serve_cases.client
model = serve_cases.model


# -- what comes out


@pytest.mark.parametrize("name", ["fixed", "free", "windows"])
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
        ("POST", "/v1/models/other/predict", 404, r"no model of that name \(there are: fixed, free, windows\)"),
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


def test_what_is_too_large_for_the_network(client, service, monkeypatch):
    """A model that gets photos whole takes less than one that gets windows; what transforms would blow up, none."""
    body = png(photo(400, 490))
    reply = client.post("/v1/models/free/predict", content=body, headers=PNG)
    assert reply.status_code == 413 and "490x400 pixels are too many for it" in reply.json()["error"]["message"]
    assert client.post("/v1/models/windows/predict", content=body, headers=PNG).status_code == 200
    monkeypatch.setattr(service.limits, "input", 10)
    reply = client.post("/v1/models/fixed/predict", content=body, headers=PNG)
    assert reply.status_code == 200  # its size is the operator's choice
    monkeypatch.setattr(service.models["windows"].segmenter, "transforms", Compose([ResizeByShort(500)]))
    reply = client.post("/v1/models/windows/predict", content=png(photo(1, 600)), headers=PNG)
    said = reply.json()["error"]["message"]
    assert reply.status_code == 413 and "got 600 x 1 -> 300000 x 500, expected at most 200,000" in said


def test_the_server_s_folders_are_not_told(client, service, monkeypatch):
    monkeypatch.setattr(service.models["fixed"].segmenter, "transforms", Compose([Normalize()]))
    reply = client.post("/predict", content=png(photo(30, 40)), headers=PNG)
    assert reply.status_code == 400 and "/tmp" not in reply.text
    assert reply.json()["error"]["message"].startswith("fixed/deploy.yaml: the model takes inputs of shape")


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
        Limits(1, 100, 1, 1, 100).check_pixels((tmp_path / "a.tif").read_bytes(), 3)


def test_an_error_of_ours_is_told_to_the_log_alone(client, service, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("secret in /etc")

    monkeypatch.setattr(service.models["fixed"].segmenter, "prepare", fail)
    said = []
    monkeypatch.setattr(guard.logger, "error", lambda *args, **more: said.append(args))
    reply = client.post("/predict", content=png(photo(20, 20)), headers=PNG)
    assert reply.status_code == 500 and "secret" not in reply.text and "Its log says why" in reply.text
    assert "secret in /etc" in str(said)
