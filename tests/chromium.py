"""Headless Chromium for tests of pages, driven over its debugging pipe: no package, no port."""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Optional

_HIGH = 10  # above the two file numbers that Chromium reads and writes
_FAKE_WEBCAM = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


def find_chromium() -> Optional[str]:
    """The browser's path, None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


class Chromium:
    """One browser with one tab. Use it as a context manager; `errors` are what the page's console said was wrong."""

    def __init__(self, profile: Path, seconds: float = 60):
        self.seconds = seconds
        self.errors: list[str] = []
        self._numbers = itertools.count(1)
        self._rest = b""
        commands, self._to = os.pipe()
        self._from, events = os.pipe()
        high = [fcntl.fcntl(end, fcntl.F_DUPFD, _HIGH) for end in (commands, events)]

        def give_pipes() -> None:
            for number, end in zip((3, 4), high):
                os.dup2(end, number)

        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
        self._process = subprocess.Popen(
            [find_chromium() or "chromium", *flags, *_FAKE_WEBCAM, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=give_pipes,
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (*high, commands, events):
            os.close(end)
        self._session: Optional[str] = None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "DOM", "Log"):
            self._call(f"{domain}.enable")

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)
        os.close(self._to)
        os.close(self._from)

    def look(self, width: int, height: int, dark: bool = False) -> None:
        """The window's size in CSS pixels, and the colour scheme that the user prefers."""
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def go(self, address: str) -> None:
        """Open a page and wait until it has loaded."""
        self._call("Page.navigate", url=address)
        while self._read().get("method") != "Page.loadEventFired":
            pass

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited."""
        found = self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script: str) -> Any:
        """The first true value of an expression that is asked again and again."""
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            value = self.run(script)
            if value:
                return value
            time.sleep(0.05)
        raise TimeoutError(f"not within {self.seconds} s: {script}; the page: {self.run('document.body.innerText')}")

    def press(self, *keys: str) -> None:
        """Keys such as ArrowRight, one after the other, for what has the focus."""
        for name in keys:
            text = {"text": "\r"} if name == "Enter" else {}
            self._call("Input.dispatchKeyEvent", type="keyDown", key=name, code=name, **text)
            self._call("Input.dispatchKeyEvent", type="keyUp", key=name, code=name)

    def choose(self, selector: str, file: Path) -> None:
        """Put a file into an <input type=file>."""
        element = self._call("Runtime.evaluate", expression=f"document.querySelector({selector!r})")["result"]
        self._call("DOM.setFileInputFiles", files=[str(file)], objectId=element["objectId"])

    def canvas(self, selector: str) -> bytes:
        """The PNG of a <canvas>."""
        address = self.run(f"document.querySelector({selector!r}).toDataURL('image/png')")
        return base64.b64decode(address.split(",", 1)[1])

    def screenshot(self, path: Path) -> None:
        """A PNG of the whole page."""
        path.write_bytes(
            base64.b64decode(self._call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"])
        )

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._from, 1 << 20)
            if not more:
                raise EOFError("Chromium has ended")
            self._rest += more
        line, self._rest = self._rest.split(b"\0", 1)
        message = json.loads(line)
        params = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"]))
        elif message.get("method") == "Log.entryAdded":  # a policy that is broken, say; refusals of a server are no bug
            entry = params["entry"]
            if entry["level"] == "error" and entry["source"] != "network":
                self.errors.append(entry["text"])
        return message
