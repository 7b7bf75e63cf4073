"""Pages for people: they load nothing from elsewhere, and work without a network."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, Response

_PAGE = Path(__file__).parent / "page"
_FILES = {
    "": ("index.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_pages(app: FastAPI) -> None:
    """The page to drop a photo on, and the description of the interface."""
    texts = {path: ((_PAGE / name).read_text(encoding="utf-8"), kind) for path, (name, kind) in _FILES.items()}
    policy = {"content-security-policy": _POLICY}

    def add(path: str, text: str, kind: str) -> None:
        @app.get(f"/{path}", include_in_schema=False)
        async def page() -> Response:
            return Response(text, media_type=kind, headers=policy)

    for path, (text, kind) in texts.items():
        add(path, text, kind)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(_docs(app.openapi()), headers=policy)


def _docs(schema: dict[str, Any]) -> str:
    """The description of the interface as a page that needs no network."""
    parts = []
    for path, methods in schema["paths"].items():
        for method, said in methods.items():
            rows = [
                (name["name"], f"in the {name['in']}. {name.get('description', '')}")
                for name in said.get("parameters", [])
            ]
            kinds = said.get("requestBody", {}).get("content", {})
            rows += [("body", " or ".join(kinds))] if kinds else []
            rows += [(code, answer["description"]) for code, answer in said["responses"].items() if code != "422"]
            cells = "".join(f"<tr><th>{html.escape(a)}<td>{html.escape(b)}" for a, b in rows)
            parts.append(
                f"<h2><code>{method.upper()} {html.escape(path)}</code></h2><p>{html.escape(said['summary'])}"
                f"<table>{cells}</table>"
            )
    info = schema["info"]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(info["title"])}: interface</title>'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        '<link rel="stylesheet" href="page.css"><body class="docs">'
        f"<h1>{html.escape(info['title'])} {info['version']}</h1>"
        f'<p>{html.escape(info["description"])} Machines read <a href="openapi.json">openapi.json</a>.'
        f"<pre>curl -F file=@photo.jpg '…/predict?format=overlay' -o overlay.png</pre>{''.join(parts)}"
    )
