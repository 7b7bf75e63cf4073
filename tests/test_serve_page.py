"""The page of segkit serve in headless Chromium: a photo in, the overlay on it, the classes beside it."""

from __future__ import annotations

import os
import threading
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkit import io
from segkit.deploy.listening import listen
from segkit.deploy.serve import server
from segkit.deploy.serve.app import Service
from segkit.deploy.serve.limits import Limits
from segkit.deploy.serve.metrics import Metrics
from segkit.deploy.serve.model import ServedModel
from segkit.options import ServeOptions
from tests.chromium import Chromium, find_chromium
from tests.tiny_model import make_all, photo, run

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed: the page is not tested")
CAME_FROM = (
    """[...performance.getEntriesByType("resource"), ...performance.getEntriesByType("navigation")].map(e => e.name)"""
)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(address, model) of a server in a thread."""
    folder = make_all(tmp_path_factory.mktemp("tiny"))
    exported = folder.parent / "exported"
    assert run("export", "--model_path", folder, "--save_dir", exported) == 0
    metrics = Metrics()
    models = {name: ServedModel(name, str(exported), ServeOptions(), metrics, 2) for name in ("cats", "others")}
    service = Service(models, Limits(1 << 20, 1_000_000, 64, 10, 1_000_000), metrics, 2)
    listening = listen("127.0.0.1", 0)
    running = server._Server(service, 10)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}", models["cats"].segmenter
    running.should_exit = True
    thread.join()
    service.close()


@pytest.fixture
def browser(tmp_path):
    with Chromium(tmp_path / "profile") as made:
        yield made
        assert made.errors == []


@pytest.mark.parametrize("width, height, dark", [(1280, 800, False), (390, 844, True)], ids=["desktop", "phone"])
def test_a_photo_is_segmented(served, browser, tmp_path, width, height, dark):
    address, model = served
    name = "phone" if dark else "desktop"
    image = photo(300, 400)
    io.write_png(tmp_path / "a.png", image)
    mask = model.predict(image)
    browser.look(width, height, dark)
    browser.go(address)
    keep(browser, f"start_{name}")
    browser.choose("#file", tmp_path / "a.png")
    browser.wait("document.querySelectorAll('#legend tr').length == 3 && document.getElementById('photo').complete")
    rows = browser.run("[...document.querySelectorAll('#legend tr')].map(row => row.innerText)")
    for number, row in enumerate(rows):
        assert f"class {number}" in row
        assert f"{int((mask == number).sum()):,}" in row and f"{100 * (mask == number).mean():.1f} %" in row
    shown = painted(browser)
    np.testing.assert_allclose(shown[mask == 1][:, 0], 128, atol=2)
    assert set(np.unique(shown[..., 3])) == {round(50 * 2.55)}
    keep(browser, f"overlay_{name}")
    browser.run("""(() => { const slider = document.getElementById("opacity"); slider.value = 100;
        slider.dispatchEvent(new Event("input")); document.querySelectorAll("#legend input")[1].click(); })()""")
    shown = painted(browser)
    assert (shown[..., 3][mask == 1] == 0).all() and (shown[..., 3][mask != 1] == 255).all()
    assert browser.run("document.documentElement.scrollWidth <= innerWidth"), "scrolls sideways"
    browser.run("document.getElementById('mask').click()")
    browser.wait("document.getElementById('mask').href.startsWith('blob:')")
    browser.run("""(() => { const list = document.getElementById("model"); list.value = "others";
        list.dispatchEvent(new Event("change")); })()""")
    browser.wait(f"{CAME_FROM}.some(name => name.includes('/v1/models/others/predict'))")
    (tmp_path / "bad.png").write_bytes(b"nothing")
    browser.choose("#file", tmp_path / "bad.png")
    browser.wait("document.querySelector('#status.bad') !== null")
    assert "not a readable image" in browser.run("document.getElementById('status').innerText")
    keep(browser, f"error_{name}")
    assert all(url.startswith((address, "blob:", "data:")) for url in browser.run(CAME_FROM))


HELD = """(() => { const real = fetch; window.made = 0; window.revoked = [];
    window.fetch = async (...asked) => {
      if (String(asked[0]).includes("format=mask")) await new Promise((go) => { window.letGo = go; });
      return real(...asked); };
    const make = URL.createObjectURL, end = URL.revokeObjectURL;
    URL.createObjectURL = (blob) => { made += 1; return make.call(URL, blob); };
    URL.revokeObjectURL = (url) => { if (url.startsWith("blob:")) revoked.push(url); end.call(URL, url); }; })()"""
MASK = "document.getElementById('mask')"


def test_a_late_mask_is_not_given_out_for_the_next_photo(served, browser, tmp_path):
    browser.look(1280, 800)
    browser.go(served[0])
    browser.run(HELD)
    for number, name in enumerate("ab"):
        io.write_png(tmp_path / f"{name}.png", photo(30 + 10 * number, 40))

    def show(name, height):
        browser.choose("#file", tmp_path / f"{name}.png")
        browser.wait(f"document.getElementById('status').innerText.startsWith('{name}.png: 40 x {height}')")

    show("a", 30)
    browser.run(f"{MASK}.click()")
    browser.wait("window.letGo !== undefined")
    show("b", 40)
    browser.run("(letGo(), new Promise((go) => setTimeout(go, 500)))")
    assert browser.run(f"{MASK}.hasAttribute('href')") is False
    browser.run(f"delete window.letGo, {MASK}.click()")
    browser.wait("window.letGo !== undefined")
    browser.run("letGo()")
    href = browser.wait(f"{MASK}.href")
    show("a", 30)
    assert href in browser.run("revoked") and browser.run(f"{MASK}.hasAttribute('href')") is False
    assert browser.run("made - revoked.length") == 1  # the photo that is shown


def test_a_photo_is_dropped_that_browsers_cannot_show(served, browser, tmp_path):
    browser.look(1280, 800)
    browser.go(served[0])
    np.save(tmp_path / "a.npy", photo(30, 40))
    data = list((tmp_path / "a.npy").read_bytes())
    browser.run(f"""(() => {{ const list = new DataTransfer();
        list.items.add(new File([new Uint8Array({data})], "<b>a</b>.npy"));
        document.getElementById("drop").dispatchEvent(new DragEvent("drop", {{dataTransfer: list, bubbles: true}})); }})()""")
    browser.wait("document.querySelector('#view.unseen') !== null")
    assert "<b>a</b>.npy: 40 x 30 pixels" in browser.run("document.getElementById('status').innerText")
    assert painted(browser).shape == (30, 40, 4)
    browser.go(f"{served[0]}/docs")
    assert "/v1/models/{name}/predict" in browser.run("document.body.innerText")
    keep(browser, "docs")


def painted(browser):
    """uint8 [H, W, 4]: the overlay's pixels."""
    return np.asarray(Image.open(BytesIO(browser.canvas("#overlay"))))


def keep(browser, name):
    """A picture of the page, for eyes, where SEGKIT_SCREENSHOTS names a folder."""
    if os.environ.get("SEGKIT_SCREENSHOTS"):
        browser.screenshot(Path(os.environ["SEGKIT_SCREENSHOTS"]) / f"{name}.png")
