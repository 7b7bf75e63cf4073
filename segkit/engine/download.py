"""Weights from the web: downloaded once, resumable, checked, and used from the cache ever after."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from segkit import runtime
from segkit.errors import InputError
from segkit.io import write_bytes_atomic
from segkit.log import logger

LARGEST = 4 << 30
"""Bytes of the largest file that is taken."""
_CHUNK = 1 << 20
_SECONDS = 30
_WEIGHTS = (".pdparams", ".safetensors")
_ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")


def is_url(path: object) -> bool:
    """Whether a config's `pretrained` names something on the web."""
    return isinstance(path, str) and "://" in path


def cache_file(url: str) -> Path:
    """Where the file of `url` lies once it is here: below `$SEGKIT_HOME`, or ~/.cache/segkit."""
    parts = urlsplit(url)
    names = [re.sub(r"[^\w.+-]", "_", unquote(part)) for part in parts.path.split("/")]
    return Path(runtime.home(), "weights", parts.hostname or "_", *(name for name in names if name.strip(".")))


def weights_from(url: str, offline: bool = False) -> Path:
    """The weights file behind `url`, downloaded unless it is in the cache; of an archive the weights inside it.

    The sum of a file, and of what came out of an archive, is kept beside it and compared at every use. Raises
    `InputError` for an address that is not https (`SEGKIT_ALLOW_HTTP=1` allows http), a file that is too large or
    holds no weights, and where the network or `offline` prevents the download; that message names the place to put
    the file.
    """
    _check_address(url)
    file = cache_file(url)
    if not file.name.endswith(_WEIGHTS + _ARCHIVES):
        raise InputError(
            f"{url}: neither weights nor an archive of them (expected a name that ends in "
            f"{', '.join(_WEIGHTS + _ARCHIVES)}). Give the address of the file itself."
        )
    with _alone(file):
        if file.is_file() and not _intact(file):
            logger.warning("%s: the file has changed since it was downloaded: downloading it again", file)
            file.unlink()
        if not file.is_file():
            if offline:
                raise InputError(f"{url}: --offline, and {file} is absent. Put the file there, or leave out --offline.")
            _download(url, file)
        return file if file.name.endswith(_WEIGHTS) else _unpacked(file)


def _check_address(url: str) -> None:
    scheme = urlsplit(url).scheme.lower()
    if scheme == "https" or (scheme == "http" and os.environ.get("SEGKIT_ALLOW_HTTP") == "1"):
        return
    raise InputError(
        f"{url}: not a https address (got {scheme}). Give a https address or a file; SEGKIT_ALLOW_HTTP=1 allows http."
    )


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Keeps other processes, the ranks of this machine among them, from writing the same file."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = open(f"{file}.lock", "w")  # noqa: SIM115
    except OSError as error:
        raise InputError(
            f"{file.parent}: downloads cannot be kept there ({error.strerror}). Set SEGKIT_HOME to a folder that can "
            "be written."
        ) from error
    with lock:
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, file: Path) -> None:
    """Into `<file>.part`, going on where an earlier try ended, and renamed when whole."""
    part, tag_file = Path(f"{file}.part"), Path(f"{file}.etag")
    request = urllib.request.Request(url, headers={"User-Agent": "segkit"})
    tag = tag_file.read_text() if tag_file.is_file() else ""
    if part.is_file() and tag:
        request.add_header("Range", f"bytes={part.stat().st_size}-")
        request.add_header("If-Range", tag)
    try:
        with urllib.request.build_opener(_SafeRedirects).open(request, timeout=_SECONDS) as answer:
            here = part.stat().st_size if answer.status == 206 else 0
            length = answer.headers.get("Content-Length") or "0"
            length = int(length) if length.isdecimal() else 0
            tag_file.write_text(answer.headers.get("ETag") or "")
            with part.open("ab" if here else "wb") as out:
                _copy(answer, out, url, here, here + length)
    except (urllib.error.URLError, http.client.HTTPException, OSError, EOFError) as error:
        if getattr(error, "code", None) == 416 and part.is_file():  # killed when all was here: there is nothing to add
            part.unlink()
            return _download(url, file)
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise InputError(
            f"{url}: cannot be downloaded ({str(reason).strip()}). Get it on another machine and put it at {file}, or "
            "give `pretrained` as a path or null."
        ) from error
    _sum_file(file).write_text(_sum(part))
    part.replace(file)
    tag_file.unlink()


def _copy(answer: IO[bytes], out: IO[bytes], url: str, here: int, total: int) -> None:
    """`total`: bytes of the whole file, or those that are here where the server does not say."""
    from tqdm import tqdm

    known = total > here
    _check_size(url, total)
    logger.info("downloading %s%s", url, f" ({total / 2**20:.0f} MB)" if known else "")
    with tqdm(total=total if known else None, initial=here, unit="B", unit_scale=True, disable=None) as bar:
        while chunk := answer.read(_CHUNK):
            here += len(chunk)
            _check_size(url, here)
            out.write(chunk)
            bar.update(len(chunk))
    if known and here != total:
        raise EOFError(f"the connection ended after {here} of {total} bytes")


def _check_size(url: str, size: int) -> None:
    if size > LARGEST:
        raise InputError(
            f"{url}: too large (got over {size >> 20} MB, expected at most {LARGEST >> 20} MB). Download it yourself "
            "and give its path."
        )


def _sum(file: Path) -> str:
    found = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def _sum_file(file: Path) -> Path:
    return Path(f"{file}.sha256")


def _intact(file: Path) -> bool:
    """Whether the sum is the one that was kept; that of a file that someone put there is kept now."""
    kept = _sum_file(file)
    if not kept.is_file():
        kept.write_text(_sum(file))
    return kept.read_text().strip() == _sum(file)


def _unpacked(archive: Path) -> Path:
    """The weights of an archive, beside it. Nothing else of it is written, and no path in it is followed."""
    found = Path(f"{archive}.pdparams")
    if found.is_file() and found.stat().st_mtime >= archive.stat().st_mtime and _intact(found):
        return found
    try:
        content = _from_zip(archive) if archive.suffix == ".zip" else _from_tar(archive)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
        # RuntimeError: an encrypted member, or one of a method that is not known
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(":")
        raise InputError(
            f"{archive}: not a readable archive ({reason}). Delete it to have it downloaded anew, or unpack it "
            "yourself and give the path of the weights."
        ) from error
    write_bytes_atomic(found, content)
    _sum_file(found).write_text(hashlib.sha256(content).hexdigest())
    return found


def _from_zip(archive: Path) -> bytes:
    with zipfile.ZipFile(archive) as opened:
        return opened.read(_only_weights(archive, {info.filename: info.file_size for info in opened.infolist()}))


def _from_tar(archive: Path) -> bytes:
    """Reads to the end of the stream, where gzip's check sum is: without it a damaged archive would pass."""
    with tarfile.open(archive) as opened:
        sizes = {member.name: member.size for member in opened.getmembers() if member.isfile()}
        content = opened.extractfile(_only_weights(archive, sizes)).read()
        while opened.fileobj.read(_CHUNK):
            pass
    return content


def _only_weights(archive: Path, sizes: dict[str, int]) -> str:
    """The member that holds the weights: `model.pdparams` where there are several."""
    names = [name for name in sizes if name.endswith(".pdparams") and not Path(name).name.startswith("._")]
    if len(names) > 1:
        names = [name for name in names if Path(name).name == "model.pdparams"] or names
    if len(names) != 1:
        raise InputError(
            f"{archive}: holds {'no' if not names else len(names)} weights files (got {', '.join(list(sizes)[:5])}, "
            "expected one .pdparams). Unpack it and give the path of the right file."
        )
    _check_size(str(archive), sizes[names[0]])
    return names[0]
