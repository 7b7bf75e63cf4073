"""Errors as JSON, in one form whatever went wrong."""

from __future__ import annotations

from http import HTTPStatus
from typing import Mapping, Optional

from fastapi.responses import JSONResponse


def error_reply(status: int, message: str, headers: Optional[Mapping[str, str]] = None) -> JSONResponse:
    """`{"error": {"status": 413, "reason": "...", "message": "..."}}`."""
    known = {item.value: item.phrase for item in HTTPStatus}
    body = {"error": {"status": status, "reason": known.get(status, ""), "message": message}}
    return JSONResponse(body, status, headers=dict(headers or {}))
