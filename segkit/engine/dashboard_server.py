"""`segkit dashboard`: VisualDL's page on the records of runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segkit.deploy.listening import address, listen
from segkit.errors import InputError, counted
from segkit.log import logger
from segkit.options import DashboardOptions

_FRESH = 5  # seconds after which VisualDL reads its files anew


def serve(folder: str, options: DashboardOptions) -> int:
    """Serve the records below `folder` until SIGTERM or Ctrl-C, which end the process at once: VisualDL's threads would
    not let it end by itself.

    Errors: no folder, no records in it, no VisualDL, or a port that is taken.
    """
    runs = _runs(Path(folder))
    try:
        from visualdl.server.app import create_app
        from visualdl.server.args import ParseArgs
        from werkzeug.serving import make_server
    except ImportError as error:
        raise InputError(f"segkit dashboard needs VisualDL ({error}). Install it: pip install visualdl.") from None
    with listen(options.host, options.port) as listening:
        # Telemetry would send to VisualDL's makers, and lets their answer replace a file of the package.
        app = create_app(ParseArgs(logdir=[folder], host=options.host, cache_timeout=_FRESH, telemetry=False))
        app.wsgi_app = _english_too(app.wsgi_app)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request
        server = make_server(options.host, options.port, app, threaded=False, fd=listening.fileno())
        logger.info(
            "VisualDL shows %s of %s on %s (Ctrl-C stops)", counted(len(runs), "run"), folder, address(listening)
        )
        server.serve_forever()
    return 0


def _english_too(answer: Callable[..., Any]) -> Callable[..., Any]:
    """The application for browsers that ask for neither English nor Chinese, too: VisualDL answers those with 500."""

    def answered(environ: dict[str, Any], start: Any) -> Any:
        asked = environ.get("HTTP_ACCEPT_LANGUAGE")
        environ["HTTP_ACCEPT_LANGUAGE"] = f"{asked},en;q=0.01" if asked else "en"
        return answer(environ, start)

    return answered


def _runs(folder: Path) -> list[Path]:
    """Folders below `folder`, it included, that hold records."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder. Give the save_dir of a run.")
    found = sorted({path.parent for path in folder.rglob("vdlrecords*.log")})
    if not found:
        raise InputError(f"{folder}: there are no VisualDL records in it. Train with --use_vdl to have them written.")
    return found
