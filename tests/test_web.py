"""The page of deploy/web: its inputs and masks are those of the toolkit. Needs node, npm's packages and Chromium."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from segkit import io, postprocess
from segkit.build import build
from segkit.palette import voc_palette
from segkit.registry import TRANSFORMS
from segkit.transforms import Compose
from tests.chromium import Chromium, find_chromium
from tests.tiny_model import PLAIN, RESIZE, make_all, photo, run

WEB = Path(__file__).resolve().parents[1] / "deploy" / "web"
NORMALIZE = {"type": "Normalize", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
pytestmark = pytest.mark.skipif(
    not (shutil.which("node") and (WEB / "node_modules" / "esbuild").is_dir()),
    reason="the web page: needs node and its packages (cd deploy/web && npm ci)",
)


def node(script: str, *args: object) -> str:
    """What a module in deploy/web prints."""
    command = ["node", "--input-type=module", "-e", script, "--", *map(str, args)]
    done = subprocess.run(command, cwd=WEB, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


CHAINS = {
    "resize": [{"type": "Resize", "target_size": [64, 48]}, NORMALIZE],
    "enlarge": [{"type": "Resize", "target_size": [333, 257]}, {"type": "Normalize"}],
    "keep_ratio": [{"type": "Resize", "target_size": [90, 70], "keep_ratio": True, "size_divisor": 32}, NORMALIZE],
    "nearest": [{"type": "Resize", "target_size": [77, 31], "interp": "NEAREST"}, NORMALIZE],
    "short": [{"type": "ResizeByShort", "short_size": 45, "max_size": 50}, NORMALIZE],
    "long": [{"type": "ResizeByLong", "long_size": 75}, {"type": "Padding", "target_size": [80, 80]}, NORMALIZE],
    "limit": [{"type": "LimitLong", "max_long": 101}, NORMALIZE, {"type": "Resize", "target_size": [50, 50]}],
    "square": [{"type": "PaddingByAspectRatio", "im_padding_value": [1, 2, 3.5]}, NORMALIZE],
    "late_padding": [NORMALIZE, {"type": "Padding", "target_size": [200, 300], "im_padding_value": 0.25}],
}


def test_inputs_are_those_of_the_toolkit(tmp_path):
    image = photo(131, 97) // 2 + np.random.default_rng(1).integers(0, 120, (131, 97, 3), np.uint8)
    image.tofile(tmp_path / "image")
    (tmp_path / "chains.json").write_text(json.dumps(CHAINS))
    script = """
        import { readFileSync, writeFileSync } from "node:fs";
        import { buildTransforms } from "./src/transforms.js";
        const folder = process.argv[1];
        const bytes = readFileSync(`${folder}/image`);
        const told = {};
        for (const [name, transforms] of Object.entries(JSON.parse(readFileSync(`${folder}/chains.json`)))) {
          let image = { data: new Uint8ClampedArray(bytes), height: 131, width: 97, channels: 3 };
          const geometry = [];
          for (const transform of buildTransforms({ name, transforms })) image = transform(image, geometry);
          writeFileSync(`${folder}/${name}`, image.data);
          told[name] = { shape: [image.height, image.width, 3], geometry };
        }
        console.log(JSON.stringify(told));
    """
    told = json.loads(node(script, tmp_path))
    for name, chain in CHAINS.items():
        sample = {"image": image, "path": name, "geometry": []}
        expected = Compose([build(TRANSFORMS, item) for item in chain])(sample, np.random.default_rng(0))
        found = np.fromfile(tmp_path / name, np.float32).reshape(told[name]["shape"])
        assert found.shape == expected["image"].shape, name
        difference = np.abs(found - expected["image"])
        # one level of 255, by std; some versions of OpenCV round some pixels otherwise
        assert difference.max() < 1.01 / 255 / 0.224 and (difference > 1e-5).mean() < 0.01, name
        steps = [(step["op"], step["from"], step["to"]) for step in told[name]["geometry"]]
        assert steps == [(step["op"], step["from"], step["to"]) for step in expected["geometry"]], name


OUTPUTS = {  # spec, channels of the output; None: class numbers
    "scores": ({"outputOp": "none", "threshold": None}, 5),
    "unsure": ({"outputOp": "none", "threshold": 0.4}, 5),
    "softmax": ({"outputOp": "softmax", "threshold": 0.4}, 4),
    "single": ({"outputOp": "none", "threshold": 0.7}, 1),
    "sigmoid": ({"outputOp": "softmax", "threshold": 0.7}, 1),
    "labels": ({"outputOp": "argmax", "threshold": None}, None),
}


def test_masks_are_those_of_the_toolkit(tmp_path):
    rng = np.random.default_rng(2)
    geometry = [
        {"op": "resize", "from": [131, 97], "to": [40, 30]},
        {"op": "pad", "from": [40, 30], "to": [48, 64], "top": 0, "left": 0},
    ]
    expected, told = {}, {"geometry": geometry, "outputs": {}}
    for name, (spec, channels) in OUTPUTS.items():
        if channels is None:
            output = rng.integers(0, 9, (48, 64)).astype(np.int32)
            expected[name] = postprocess.label_map(output, geometry)
        else:
            scores = output = rng.normal(size=(channels, 48, 64)).astype(np.float32)
            if spec["outputOp"] == "softmax":
                output = np.exp(scores) / np.exp(scores).sum(0) if channels > 1 else 1 / (1 + np.exp(-scores))
                scores = np.log(output) if channels > 1 else scores
            expected[name] = postprocess.class_map(scores, geometry, spec["threshold"])
        output.tofile(tmp_path / name)
        told["outputs"][name] = {"spec": spec, "dims": [1, *output.shape]}
    (tmp_path / "told.json").write_text(json.dumps(told))
    script = """
        import { readFileSync, writeFileSync } from "node:fs";
        import { maskOf } from "./src/mask.js";
        const folder = process.argv[1];
        const { geometry, outputs } = JSON.parse(readFileSync(`${folder}/told.json`));
        for (const [name, { spec, dims }] of Object.entries(outputs)) {
          const bytes = new Uint8Array(readFileSync(`${folder}/${name}`)).buffer;
          const data = dims.length === 3 ? new Int32Array(bytes) : new Float32Array(bytes);
          writeFileSync(`${folder}/${name}.mask`, maskOf({ data, dims }, geometry, spec));
        }
    """
    node(script, tmp_path)
    for name, mask in expected.items():
        found = np.fromfile(tmp_path / f"{name}.mask", np.uint8).reshape(131, 97)
        assert (found == mask).mean() >= 0.9999 and len(np.unique(mask)) > 1, name


@pytest.mark.parametrize(
    "change, message",
    [
        ({"onnx": None}, "this folder holds no ONNX model. Export it with --format onnx"),
        ({"multilabel": True}, "several labels a pixel"),
        ({"test_config": {"is_slide": True, "crop_size": 64}}, "sliding windows"),
        ({"scores_are": "distances"}, "scores that are distances are not read here"),
        ({"img_channels": 5}, "photos of 1 or 3 channels (got img_channels: 5)"),
        ({"nodata": -1}, "photos with missing data (nodata: -1)"),
        ({"input_shape": [4, 3, -1, -1]}, "the model takes 4 photos at once"),
        ({"transforms": [{"type": "RandomBlur"}]}, "deploy.yaml: Deploy.transforms.0: RandomBlur is not done in the"),
        ({"transforms": [{"type": "Resize", "interp": "AREA"}]}, "interp AREA is not done in the browser"),
        ({"transforms": [{"type": "Resize", "size": 3}]}, "Resize takes no size (expected target_size, interp"),
        ({"transforms": [{"type": "ResizeByShort", "short_size": [3, 4]}]}, "several short_size are drawn at random"),
        ("Deploy: [", "this is not valid YAML"),
        ("model: x", "there is no section 'Deploy:'"),
    ],
)
def test_what_a_browser_cannot_do_is_refused(change, message):
    text = change
    if isinstance(change, dict):
        text = yaml.safe_dump({"Deploy": {"onnx": "model.onnx", "transforms": PLAIN, **change}})
    script = """
        import { readSpec } from "./src/deploy.js";
        import { buildTransforms } from "./src/transforms.js";
        try {
          buildTransforms(readSpec(process.argv[1], "deploy.yaml"));
        } catch (error) {
          console.log(error.message);
        }
    """
    said = node(script, text)
    assert said.startswith("deploy.yaml: ") and message in said


def test_only_an_earlier_page_is_removed(tmp_path):
    def build(dist):
        done = subprocess.run(["node", "build.mjs", "", dist], cwd=WEB, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"mine")
    code, said = build(tmp_path / "photos")
    assert code == 2 and "photos: there are other files in this folder. Give a new one, or one that was" in said
    assert (tmp_path / "photos" / "a.png").read_bytes() == b"mine"
    code, said = build(tmp_path / "photos" / "a.png")
    assert code == 2 and "a.png: cannot be read (ENOTDIR). Give another folder." in said
    (tmp_path / "dist").mkdir()
    assert build(tmp_path / "dist") == (0, "")
    (tmp_path / "dist" / "models").mkdir()
    (tmp_path / "dist" / "chunk-OLD1.js").write_text("old")
    assert build(tmp_path / "dist") == (0, "")
    names = {path.name for path in (tmp_path / "dist").iterdir()}
    assert {"models", "index.html", "runtime"} <= names and "chunk-OLD1.js" not in names


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """(address, folder): the page served with one model in model/ and another, with folded normalisation, in folded/."""
    if find_chromium() is None:
        pytest.skip("the web page: needs Chromium")
    root = tmp_path_factory.mktemp("web")
    best = make_all(root)
    dist = root / "dist"
    onnx = ("--format", "onnx", "--model_path", best)
    assert run("export", *onnx, "--save_dir", root / "exported") == 0
    short = [{"type": "ResizeByLong", "long_size": 64}, {"type": "Padding", "target_size": [64, 64]}, *PLAIN]
    opts = ("--opts", f"val_dataset.transforms={json.dumps(short)}")
    subprocess.run(["node", "build.mjs", root / "exported", dist], cwd=WEB, check=True, stdout=subprocess.DEVNULL)
    assert run("export", *onnx, "--save_dir", dist / "folded", "--fold_preprocess", *opts) == 0
    server = subprocess.Popen(["node", "serve.mjs", "0", str(dist)], cwd=WEB, stdout=subprocess.PIPE, text=True)
    yield server.stdout.readline().strip(), root, {"model": RESIZE, "folded": short}
    server.terminate()
    server.wait(10)


READY = "document.querySelector('#status').textContent.startsWith('Ready')"
DONE = "document.querySelector('#time').textContent || document.querySelector('#error').textContent"

DROP = """
    fetch("data:image/png;base64,BYTES").then((answer) => answer.blob()).then((blob) => {
      const data = new DataTransfer();
      data.items.add(new File([blob], "photo.png", { type: "image/png" }));
      document.dispatchEvent(new DragEvent("drop", { dataTransfer: data }));
    })
"""


def test_masks_in_chromium_are_those_of_predict(site, tmp_path):
    address, root, chains = site
    sizes = {"a": (61, 83), "b": (140, 97), "c": (48, 64)}
    for seed, (name, size) in enumerate(sizes.items()):
        io.write_png(tmp_path / "in" / f"{name}.png", photo(*size, seed))
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(photo(50, 80, 7)).save(tmp_path / "in" / "turned.jpg", exif=turned, quality=95)
    with Chromium(tmp_path / "profile") as page:
        page.look(1000, 700)
        for folder, transforms in chains.items():
            flags = ("--model_path", root / "best_model", "--image_path", tmp_path / "in", "--no_onednn")
            opts = ("--opts", f"val_dataset.transforms={json.dumps(transforms)}")
            assert run("predict", *flags, "--save_dir", tmp_path / folder, *opts) == 0
            masks = tmp_path / folder / "mask"
            page.go(f"{address}?model={folder}")
            page.wait(READY)
            requests = page.run("performance.getEntriesByType('resource').length")
            for file in sorted((tmp_path / "in").iterdir()):
                page.run("void (document.querySelector('#time').textContent = '')")
                page.choose("#file", file)
                page.wait(DONE)
                expected = np.asarray(Image.open(masks / f"{file.stem}.png"))
                found = np.asarray(Image.open(BytesIO(page.canvas("#mask"))).convert("RGB"))
                assert found.shape[:2] == expected.shape
                same = (found == voc_palette()[expected]).all(axis=2).mean()
                assert same >= (0.99 if file.suffix == ".jpg" else 0.999), (folder, file.name)
                assert len(np.unique(expected)) > 1
            assert page.run("performance.getEntriesByType('resource').length") == requests  # no photo leaves the page
        assert page.errors == []


STREAMS = """(() => { const devices = navigator.mediaDevices, open = devices.getUserMedia.bind(devices);
    window.streams = [];
    devices.getUserMedia = async (what) => { const made = await open(what); streams.push(made); return made; };
    window.live = () => streams.filter((made) => made.getTracks().some((track) => track.readyState == "live")).length;
})()"""


def test_the_page_is_usable(site, tmp_path):
    address, _, _ = site
    io.write_png(tmp_path / "photo.png", photo(60, 80))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG but no photo")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    with Chromium(tmp_path / "profile") as page:
        page.look(390, 844, dark=True)
        page.go(f"{address}?model=nowhere")
        assert "nowhere/deploy.yaml: there is no such file (404)" in page.wait(DONE)
        page.go(address)
        page.wait(READY)
        assert page.run("crossOriginIsolated") is True  # threads
        page.choose("#file", tmp_path / "broken.png")
        assert "broken.png: this browser cannot read it" in page.wait(DONE)
        page.choose("#file", tmp_path / "deep.png")
        page.wait("document.querySelector('#error').textContent.includes('8 bits a channel (got 16)')")
        page.run(DROP.replace("BYTES", base64.b64encode((tmp_path / "photo.png").read_bytes()).decode()))
        page.wait("document.querySelector('#time').textContent.startsWith('80 x 60 pixels')")
        assert page.run("document.querySelector('#error').hidden") is True
        legend = page.run(
            "[...document.querySelectorAll('#legend li')].map((row) => row.innerText.replace(/\\s+/g, ' '))"
        )
        assert [row.split()[:2] for row in legend] == [["class", str(number)] for number in range(3)]
        assert sum(float(row.split()[2]) for row in legend) == pytest.approx(100, abs=0.2)
        page.run("document.querySelector('#opacity').value = 75, document.querySelector('#opacity').oninput()")
        assert page.run("getComputedStyle(document.querySelector('#mask')).opacity") == "0.75"
        for width in (390, 1000):
            page.look(width, 800)
            assert page.run("document.documentElement.scrollWidth <= innerWidth") is True
        page.run(STREAMS)
        page.run("for (let n = 0; n < 2; n++) document.querySelector('#webcam').click()")  # a double click
        page.wait("document.querySelector('#time').textContent.startsWith('640 x 480 pixels')")
        page.wait("streams.length == 2 && live() == 1")
        page.run("document.querySelector('#webcam').click()")
        page.wait(READY)
        assert page.run("live()") == 0
        assert page.errors == []
