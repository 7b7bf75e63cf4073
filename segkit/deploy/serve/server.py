"""`segkit serve`: the socket, time limits of connections, and an end that loses no request."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import Any, Optional

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from segkit.deploy.listening import BACKLOG, address, listen
from segkit.deploy.serve.app import Service
from segkit.deploy.serve.limits import Limits
from segkit.deploy.serve.metrics import Metrics
from segkit.deploy.serve.model import ServedModel, named_folders
from segkit.errors import InputError
from segkit.log import logger
from segkit.options import ServeOptions

_HEADERS = 10.0  # seconds that a connection may be open without a whole request
_KEEP_ALIVE = 15  # seconds that it may then wait for the next one
_FLUSH = 60.0  # seconds that a client may take to read what is left of a reply
_LAST_WORD = 1.0  # seconds that an open connection may still bring a request when the server stops
STOPPED = 143  # as SPEC's exit codes: made to stop before everything was answered


def serve(models: list[str], options: ServeOptions) -> int:
    """Serve exported folders, `FOLDER` or `NAME=FOLDER`, until SIGTERM or Ctrl-C. Returns 0 when every accepted
    request was answered, 143 when a second signal or `stop_timeout` cut some short."""
    _check(options)
    folders = named_folders(models)
    metrics = Metrics()
    threads = max(2, min(8, os.cpu_count() or 1))
    served = {name: ServedModel(name, folder, options, metrics, threads) for name, folder in folders.items()}
    limits = Limits(
        round(options.max_body_mb * 2**20), options.max_pixels, options.queue, options.timeout, options.max_input_pixels
    )
    service = Service(served, limits, metrics, threads)
    with listen(options.host, options.port) as listening:
        logger.info("serving %s on %s (Ctrl-C or SIGTERM stops)", ", ".join(folders), address(listening))
        server = _Server(service, options.stop_timeout)
        server.run(sockets=[listening])
    if service.guard.lost:
        logger.error("stopped at once: %d requests were not answered", service.guard.lost)
        return STOPPED
    service.close()
    logger.info("stopped, every request was answered: %d", service.guard.answered)
    return 0


def _check(options: ServeOptions) -> None:
    for name in ("max_batch", "max_pixels", "max_input_pixels", "queue", "max_body_mb", "timeout", "stop_timeout"):
        if getattr(options, name) <= 0:
            raise InputError(f"--{name}: got {getattr(options, name)}, expected a number above 0.")
    if options.max_wait_ms < 0:
        raise InputError(f"--max_wait_ms: got {options.max_wait_ms}, expected a number not below 0.")


class _Server(uvicorn.Server):
    """uvicorn's, which also answers what waits in the socket's queue when it stops."""

    def __init__(self, service: Service, stop_timeout: float):
        for name in ("uvicorn", "uvicorn.error"):
            logging.getLogger(name).handlers, logging.getLogger(name).propagate = logger.handlers, False
        super().__init__(
            uvicorn.Config(
                service.guard,
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=stop_timeout,
            )
        )
        self._guard = service.guard

    def handle_exit(self, sig: int, frame: Any) -> None:
        """The first signal asks to finish, the second to stop at once. Neither is raised again afterwards: the exit
        code is ours."""
        self.force_exit = self.should_exit
        self.should_exit = self._guard.stopping = True

    async def shutdown(self, sockets: Optional[list[socket.socket]] = None) -> None:
        """Accept what clients believe to be accepted, then close the socket and answer everything."""
        logger.info("stopping: %d photos are still to be answered", self._guard.admission.taken)
        loop = asyncio.get_running_loop()
        waiting: Any = True
        last = loop.time() + _LAST_WORD
        while waiting and loop.time() < last:
            waiting = _waiting(sockets or [])
            await asyncio.gather(*(loop.connect_accepted_socket(self._protocol, found) for found in waiting))
        await super().shutdown(sockets)

    def _protocol(self) -> H11Protocol:
        return _Protocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


def _waiting(sockets: list[socket.socket]) -> list[socket.socket]:
    """Connections that the system has accepted in our name."""
    found = []
    for listening in sockets:
        try:
            while True:
                found.append(listening.accept()[0])
        except (BlockingIOError, ConnectionError):
            continue
    return found


class _Protocol(H11Protocol):
    """A connection that is closed when a request, or the reading of a reply, takes for ever."""

    _late_request: Optional[asyncio.TimerHandle] = None
    _late_reader: Optional[asyncio.TimerHandle] = None
    _stopping = False

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._late_request = self.loop.call_later(_HEADERS, self._close_idle)

    def data_received(self, data: bytes) -> None:
        """Wait on, but no longer than for a whole request's headers."""
        super().data_received(data)
        if not self._idle():
            self.cycle.keep_alive &= not self._stopping
            self._late_request = _cancelled(self._late_request)
        elif self._late_request is None:
            self._late_request = self.loop.call_later(_HEADERS, self._close_idle)

    def on_response_complete(self) -> None:
        """Have the reply read in time."""
        _cancelled(self._late_reader)
        self._late_reader = self.loop.call_later(_FLUSH, self._abort_unread)
        super().on_response_complete()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        """Nothing more to wait for."""
        self._late_request, self._late_reader = _cancelled(self._late_request), _cancelled(self._late_reader)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Finish the request that is being answered; an idle connection may bring one that is on its way."""
        self._stopping = True
        if self._idle():
            self.loop.call_later(_LAST_WORD, self._close_idle)
        else:
            super().shutdown()

    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _close_idle(self) -> None:
        if self._idle():
            self.timeout_keep_alive_handler()

    def _abort_unread(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()


def _cancelled(timer: Optional[asyncio.TimerHandle]) -> None:
    if timer is not None:
        timer.cancel()
