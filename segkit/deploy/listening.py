"""The socket that a server answers on."""

from __future__ import annotations

import socket

from segkit.errors import InputError

BACKLOG = 1024


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes a free one. Errors: the port is taken, or the host not this one's."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--host {host} --port {port}: cannot be listened on ({error}). Choose another port, or 0 for any that is "
            "free; or another --host."
        ) from error


def address(listening: socket.socket) -> str:
    """`http://127.0.0.1:8000` of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
