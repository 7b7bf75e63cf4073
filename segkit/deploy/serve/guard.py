"""Around the whole application: limits on what comes in and how slowly, a log line, metrics, no traceback outside."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Callable, Optional

from segkit.deploy.serve.limits import Admission, Refused
from segkit.deploy.serve.metrics import Metrics
from segkit.log import logger

_LINGER = 5.0  # seconds that the rest of a refused body is read and thrown away, so that the client sees the reply
_SEND = 60.0  # seconds that a client may take to read a part of the reply
_SILENT = ("/healthz", "/readyz", "/metrics")  # asked every few seconds, and of no interest while all is well
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]


class Guard:
    """An ASGI application around another. `stopping` closes every connection after its reply; `lost` counts requests
    that were begun and never answered because the server was made to stop at once."""

    def __init__(self, app: Callable[..., Any], admission: Admission, metrics: Metrics):
        self.app, self.admission, self.metrics = app, admission, metrics
        self.stopping = False
        self.answered = 0
        self.lost = 0

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(self, scope, receive, send)
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            self.lost += exchange.status is None
            raise
        except Exception as error:
            logger.error("%s failed: %s", exchange.title(), error, exc_info=error)
        finally:
            self.admission.release(exchange.received)
            exchange.end()


class _Exchange:
    """A request and its reply."""

    def __init__(self, guard: Guard, scope: dict[str, Any], receive: Any, send: Any):
        self.guard, self.scope = guard, scope
        self._receive, self._send = receive, send
        headers = dict(scope["headers"])
        self.declared = int(headers.get(b"content-length", b"0"))
        self.unread = self.declared > 0 or b"transfer-encoding" in headers
        self.invited = headers.get(b"expect", b"").lower() != b"100-continue"  # or else asked before sending the body
        self.received = self.sent = 0
        self.status: Optional[int] = None
        self.begin = time.monotonic()

    async def receive(self) -> dict[str, Any]:
        """The next part of the body, or `Refused` where it is too large or too slow."""
        if not self.unread:
            return await self._receive()
        limits = self.guard.admission.limits
        limits.check_body(self.declared)
        self.invited = True
        try:
            left = self.begin + limits.upload - time.monotonic()
            message = await asyncio.wait_for(self._receive(), max(0.01, left))
        except asyncio.TimeoutError:
            raise Refused(
                408, f"the body was not here after {limits.upload:g} seconds. Send it faster, or a smaller one."
            ) from None
        size = len(message.get("body", b""))
        self.unread = message.get("more_body", False)
        limits.check_body(self.received + size)
        self.guard.admission.hold(size)
        self.received += size
        return message

    async def send(self, message: dict[str, Any]) -> None:
        """A part of the reply, with the headers that every reply has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = {name for name, _ in message.get("headers", [])}
            added = [pair for pair in _HEADERS if pair[0] not in own]
            if self.unread or self.guard.stopping:
                added.append((b"connection", b"close"))
            message = {**message, "headers": [*message.get("headers", []), *added]}
        elif message["type"] == "http.response.body":
            self.sent += len(message.get("body", b""))
            if self.unread and not message.get("more_body"):
                await self._patiently({**message, "more_body": True})
                await self._throw_away()
                message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._patiently(message)

    async def _patiently(self, message: dict[str, Any]) -> None:
        await asyncio.wait_for(self._send(message), _SEND)

    async def _throw_away(self) -> None:
        """A client that is still sending looks for the reply only afterwards: a connection closed now would lose it."""
        end = time.monotonic() + _LINGER
        while self.invited and self.unread and time.monotonic() < end:
            try:
                message = await asyncio.wait_for(self._receive(), end - time.monotonic())
            except asyncio.TimeoutError:
                return
            self.unread = message.get("more_body", False)

    def title(self) -> str:
        """Who asked for what; the path as it was sent, without line breaks."""
        client = (self.scope.get("client") or ("-",))[0]
        path = self.scope.get("raw_path", b"").decode("ascii", "replace")[:100]
        return f"{client} {self.scope['method'][:20]} {path}"

    def end(self) -> None:
        """Count and log it."""
        seconds = time.monotonic() - self.begin
        template = getattr(self.scope.get("route"), "path", "other")
        method = self.scope["method"] if self.scope["method"] in ("GET", "HEAD", "POST", "OPTIONS") else "other"
        self.guard.metrics.requests.labels(template, method, str(self.status or "none")).inc()
        self.guard.metrics.seconds.labels(template).observe(seconds)
        self.guard.answered += self.status is not None
        if template not in _SILENT or self.status != 200:
            logger.info("%s %s %d bytes %.0f ms", self.title(), self.status or "no reply", self.sent, 1000 * seconds)
