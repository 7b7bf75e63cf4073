"""Weights from the web, from a server in this process."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import urllib.request
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import paddle
import pytest

from segkit.config import Config
from segkit.engine import download, start
from segkit.engine.download import cache_file, weights_from
from segkit.engine.start import load_pretrained
from segkit.engine.weights import load_state, load_weights, save_state
from segkit.errors import InputError
from segkit.models.unet import UNet
from tests.tiny import make_data, tiny_config


class Server:
    """Serves `files` (path -> bytes) and remembers what was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        """(path, Range header)"""
        self.cut: int = 0
        """Break the next answer off after so many bytes."""
        self.redirect: str = ""
        self.raw: bytes = b""
        """Answer with these bytes, whatever HTTP says."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range", "")
        self.asked.append((handler.path, wanted))
        if self.raw:
            handler.wfile.write(self.raw)
            handler.close_connection = True
            return
        if self.redirect:
            handler.send_response(302)
            handler.send_header("Location", self.redirect)
            handler.end_headers()
            return
        content = self.files.get(handler.path)
        if content is None:
            handler.send_error(404)
            return
        tag = f'"{hashlib.sha256(content).hexdigest()[:8]}"'
        start = 0
        if wanted and handler.headers.get("If-Range") == tag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        if start >= len(content):
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(content) - start))
        handler.send_header("ETag", tag)
        handler.end_headers()
        part = content[start : self.cut or None]
        self.cut = 0
        handler.wfile.write(part)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http.server_port}{path}"


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("SEGKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SEGKIT_ALLOW_HTTP", "1")
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


def weights(tmp_path: Path, **arguments) -> bytes:
    paddle.seed(5)
    save_state(UNet(2, base_channels=2, **arguments).state_dict(), tmp_path / "made.pdparams")
    return (tmp_path / "made.pdparams").read_bytes()


def tar(**members: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def test_downloaded_once_then_from_the_cache_even_offline(server, tmp_path):
    content = server.files["/a%20b/model.pdparams"] = weights(tmp_path)
    url = server.url("/a%20b/model.pdparams")
    first = weights_from(url)
    assert first == cache_file(url) and first.read_bytes() == content
    assert first.name == "model.pdparams" and first.parent.name == "a_b"
    assert weights_from(url, offline=True) == first and len(server.asked) == 1
    assert not list(first.parent.glob("*.part")) and not list(first.parent.glob("*.etag"))


def test_killed_after_the_last_byte(server, tmp_path):
    """Then the server has nothing more to give (status 416): once from the beginning, not refused for ever."""
    content = server.files["/model.pdparams"] = weights(tmp_path)
    url = server.url("/model.pdparams")
    file = cache_file(url)
    file.parent.mkdir(parents=True)
    file.with_name("model.pdparams.part").write_bytes(content)
    file.with_name("model.pdparams.etag").write_text(f'"{hashlib.sha256(content).hexdigest()[:8]}"')
    assert weights_from(url).read_bytes() == content
    assert server.asked == [("/model.pdparams", f"bytes={len(content)}-"), ("/model.pdparams", "")]


def test_goes_on_where_an_earlier_try_ended(server, tmp_path):
    content = server.files["/model.pdparams"] = weights(tmp_path)
    server.cut = 1000
    with pytest.raises(InputError, match=r"cannot be downloaded .*1000 of \d+ bytes.*put it at .*model\.pdparams"):
        weights_from(server.url("/model.pdparams"))
    assert weights_from(server.url("/model.pdparams")).read_bytes() == content
    assert server.asked[-1] == ("/model.pdparams", "bytes=1000-")


def test_starts_over_where_the_file_was_replaced_meanwhile(server, tmp_path):
    server.files["/model.pdparams"] = b"old" * 1000
    server.cut = 1000
    with pytest.raises(InputError):
        weights_from(server.url("/model.pdparams"))
    content = server.files["/model.pdparams"] = weights(tmp_path)
    assert weights_from(server.url("/model.pdparams")).read_bytes() == content


def test_a_damaged_file_in_the_cache_is_downloaded_again(server, tmp_path):
    content = server.files["/model.pdparams"] = weights(tmp_path)
    file = weights_from(server.url("/model.pdparams"))
    file.write_bytes(content[:-1] + b"?")
    assert weights_from(server.url("/model.pdparams")).read_bytes() == content


def test_a_file_that_someone_put_there_is_used(server, tmp_path):
    file = cache_file(server.url("/there.pdparams"))
    file.parent.mkdir(parents=True)
    file.write_bytes(weights(tmp_path))
    assert weights_from(server.url("/there.pdparams"), offline=True) == file and not server.asked


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_weights_inside_an_archive(server, tmp_path, kind):
    content = weights(tmp_path)
    members = {"net__model.pdparams": content, "net__other.pdparams": b"x", "net__README": b"hello"}
    if kind == "tar":
        name, archive = "/net.tar.gz", tar(**members)
    else:
        name, packed = "/net.zip", io.BytesIO()
        with zipfile.ZipFile(packed, "w") as opened:
            for member, data in members.items():
                opened.writestr(member.replace("__", "/"), data)
        archive = packed.getvalue()
    server.files[name] = archive
    found = weights_from(server.url(name))
    assert found.read_bytes() == content and "encode.double_conv.0._conv.weight" in load_state(found)
    assert weights_from(server.url(name)) == found and len(server.asked) == 1


def test_archives_write_nowhere_else(server, tmp_path):
    server.files["/evil.tar.gz"] = tar(**{"..__..__..__model.pdparams": b"data"})
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    found = weights_from(server.url("/evil.tar.gz"))
    new = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert {path.parent for path in new} == {found.parent}


def test_archives_without_weights_or_damaged(server):
    server.files["/none.tar.gz"] = tar(README=b"hello")
    with pytest.raises(InputError, match=r"holds no weights files .got README.*Unpack it"):
        weights_from(server.url("/none.tar.gz"))
    server.files["/torn.tar.gz"] = b"not an archive"
    with pytest.raises(InputError, match=r"not a readable archive .*Delete it"):
        weights_from(server.url("/torn.tar.gz"))


def test_refusals(server, monkeypatch):
    with pytest.raises(InputError, match=r"--offline, and .*model\.pdparams is absent\. Put the file there"):
        weights_from(server.url("/model.pdparams"), offline=True)
    with pytest.raises(InputError, match=r"cannot be downloaded \(Not Found\)"):
        weights_from(server.url("/model.pdparams"))
    with pytest.raises(InputError, match=r"neither weights nor an archive .*address of the file itself"):
        weights_from(server.url("/page.html"))
    server.files["/big.pdparams"] = b"x" * 5000
    monkeypatch.setattr(download, "LARGEST", 4000)
    with pytest.raises(InputError, match=r"too large .*Download it yourself"):
        weights_from(server.url("/big.pdparams"))
    monkeypatch.delenv("SEGKIT_ALLOW_HTTP")
    with pytest.raises(InputError, match=r"not a https address .got http.*SEGKIT_ALLOW_HTTP=1"):
        weights_from(server.url("/model.pdparams"))


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\ncut",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"no HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300 + b"\r\n",
    ],
)
def test_servers_that_break_the_protocol(server, raw):
    server.raw = raw
    with pytest.raises(InputError, match=r"model\.pdparams: cannot be downloaded \(.*put it at"):
        weights_from(server.url("/model.pdparams"))
    assert not cache_file(server.url("/model.pdparams")).exists()


def test_a_length_that_is_no_number_is_none(server, tmp_path):
    content = weights(tmp_path)
    server.raw = b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n" + content
    assert weights_from(server.url("/model.pdparams")).read_bytes() == content


def test_a_redirect_from_https_to_http_is_not_followed(monkeypatch):
    """That of urllib would: only the class is asked, as a server with a certificate is not at hand."""
    monkeypatch.delenv("SEGKIT_ALLOW_HTTP", raising=False)
    request = urllib.request.Request("https://example.com/a.pdparams")
    follow = download._SafeRedirects().redirect_request
    with pytest.raises(InputError, match=r"http://example\.com/b: not a https address \(got http\)"):
        follow(request, None, 302, "Found", {}, "http://example.com/b")
    assert follow(request, None, 302, "Found", {}, "https://example.com/b").full_url == "https://example.com/b"


def test_a_redirect_is_checked_on_its_way(server, monkeypatch):
    server.redirect = "http://127.0.0.1:1/elsewhere.pdparams"
    checked = []
    monkeypatch.setattr(download, "_check_address", checked.append)
    with pytest.raises(InputError, match="cannot be downloaded"):
        weights_from(server.url("/model.pdparams"))
    assert checked == [server.url("/model.pdparams"), server.redirect]


def zipped(content: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytearray:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as opened:
        opened.writestr("model.pdparams", content)
    return bytearray(packed.getvalue())


def test_archives_damaged_inside(server, tmp_path):
    content = weights(tmp_path)
    start = 30 + len("model.pdparams")  # of the first member's bytes in a zip
    torn, locked, strange = zipped(content), zipped(content), zipped(content)
    torn[start : start + 40] = b"\xff" * 40
    entry = locked.index(b"PK\1\2")
    locked[6] |= 1
    locked[entry + 8] |= 1  # encrypted
    strange[8] = strange[entry + 10] = 99  # the method
    packed = bytearray(tar(**{"model.pdparams": content}))
    packed[-8:-4] = b"sum!"
    for name, archive, said in (
        ("torn.zip", torn, "not a readable archive"),
        ("locked.zip", locked, "encrypted"),
        ("strange.zip", strange, "not supported"),
        ("torn.tar.gz", packed, "CRC check failed"),
    ):
        server.files[f"/{name}"] = bytes(archive)
        with pytest.raises(InputError, match=rf"{name}: not a readable archive.*Delete it") as refused:
            weights_from(server.url(f"/{name}"))
        assert said in str(refused.value)


def test_weights_that_came_out_of_an_archive_are_compared_too(server, tmp_path):
    content = weights(tmp_path)
    server.files["/net.tar.gz"] = tar(**{"model.pdparams": content})
    found = weights_from(server.url("/net.tar.gz"))
    found.write_bytes(content[:-1] + b"?")
    assert weights_from(server.url("/net.tar.gz")).read_bytes() == content


def test_a_cache_that_cannot_be_written(server, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEGKIT_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"downloads cannot be kept there .*Set SEGKIT_HOME"):
        weights_from(server.url("/model.pdparams"))


def test_pretrained_as_a_url_keeps_all_but_the_head(server, tmp_path, monkeypatch):
    server.files["/net.tar.gz"] = tar(**{"model.pdparams": weights(tmp_path)})
    data = make_data(tmp_path / "data", train=2, val=1)
    node = {"type": "UNet", "base_channels": 2, "pretrained": server.url("/net.tar.gz")}
    cfg = Config(tiny_config(data, tmp_path / "config.yml", model=node))
    model = UNet(3, base_channels=2)
    said: list[str] = []
    monkeypatch.setattr(start.logger, "info", lambda text, *args: said.append(text % args))
    load_pretrained(cfg, model)
    assert said[-1].startswith("model.pretrained: ")
    assert "skipped by shape" in said[-1] and "cls.weight" in said[-1]
    expected = load_state(tmp_path / "made.pdparams")
    first = model.encode.double_conv[0]._conv.weight.numpy()
    np.testing.assert_array_equal(first, expected["encode.double_conv.0._conv.weight"])
    with pytest.raises(InputError, match=r"model\.pretrained: .*--offline"):
        cfg = Config(cfg.path, [f"model.pretrained={server.url('/absent.pdparams')}"])
        load_pretrained(cfg, model, offline=True)


@pytest.mark.parametrize("kept, level", [("encode", "info"), ("cls", "warning")])
def test_weights_for_less_than_half_of_a_model_are_a_warning(kept, level, tmp_path, monkeypatch):
    state = {key: value for key, value in UNet(2, base_channels=2).state_dict().items() if key.startswith(kept)}
    save_state(state, tmp_path / "part.pdparams")
    node = {"type": "UNet", "base_channels": 2, "pretrained": str(tmp_path / "part.pdparams")}
    cfg = Config(tiny_config(make_data(tmp_path / "data", train=2, val=1), tmp_path / "config.yml", model=node))
    said: list[str] = []
    monkeypatch.setattr(start.logger, level, lambda text, *args: said.append(text % args))
    load_pretrained(cfg, UNet(2, base_channels=2))
    assert said and f"model.pretrained: {tmp_path / 'part.pdparams'}: {len(state)} loaded" in said[-1]


def test_another_width_is_refused_whole(tmp_path):
    save_state(UNet(2, base_channels=4).state_dict(), tmp_path / "wide.pdparams")
    model = UNet(2, base_channels=2)
    before = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    with pytest.raises(InputError, match=r"weights of a UNet of another width, nothing was loaded"):
        load_weights(model, tmp_path / "wide.pdparams")
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[key])
