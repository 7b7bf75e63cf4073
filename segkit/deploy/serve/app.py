"""The routes: predictions, health, metrics, the page."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Optional

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from segkit import __version__
from segkit.deploy.serve import metrics as prometheus
from segkit.deploy.serve.guard import Guard
from segkit.deploy.serve.limits import Admission, Limits, Refused
from segkit.deploy.serve.metrics import Metrics
from segkit.deploy.serve.model import ServedModel
from segkit.deploy.serve.pages import add_pages
from segkit.deploy.serve.replies import error_reply
from segkit.deploy.serve.results import MEDIA, Wanted, choose
from segkit.errors import EngineError, InputError

_UPLOAD = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"file": {"type": "string", "format": "binary"}},
                "required": ["file"],
            }
        },
        "image/*": {"schema": {"type": "string", "format": "binary"}},
    },
}
_ERRORS = {
    400: "no readable image, or a wrong parameter",
    404: "no model of that name",
    406: "no format that Accept names",
    408: "the body came too slowly",
    413: "too many bytes or pixels",
    415: "a body that is neither a form nor an image",
    429: "too many photos wait; Retry-After says for how long",
}

_GONE = 499  # nobody is there to read it: for the log and the metrics, as nginx counts it
_PLAIN = {
    404: "there is nothing at this address. /docs tells what there is.",
    405: "this address does not take that method. /docs tells which it takes.",
}


class Service:
    """The models by name (the first is the default one), and what all requests share."""

    def __init__(self, models: dict[str, ServedModel], limits: Limits, metrics: Metrics, threads: int):
        self.models, self.limits, self.metrics = models, limits, metrics
        self.admission = Admission(limits)
        self.metrics.waiting.set_function(lambda: self.admission.taken)
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="photos")
        self.guard = Guard(_application(self), self.admission, metrics)

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here."""
        return not self.guard.stopping and all(model.ready for model in self.models.values())

    def model(self, name: Optional[str]) -> ServedModel:
        """The model called `name`, or the default one for None."""
        found = self.models[next(iter(self.models))] if name is None else self.models.get(name)
        if found is None:
            raise Refused(404, f"there is no model of that name (there are: {', '.join(self.models)}).")
        return found

    async def predict(self, name: Optional[str], request: Request, format: Optional[str], tolerance: float) -> Response:
        """One photo in, one reply out."""
        model = self.model(name)
        wanted = Wanted(choose(format, request.headers.get("accept", "")), tolerance)
        with self.admission.photo(model.batcher.seconds_a_photo):
            data = await _photo(request)
            async with model.room.place(await model.weigh(data, self.limits, self.pool)):
                if await request.is_disconnected():
                    return Response(status_code=_GONE)
                try:
                    body = await model.answer(data, wanted, self.limits, self.pool)
                except EngineError as error:
                    raise RuntimeError(str(error)) from error  # 500: no photo of the client's could mend it
                except InputError as error:  # of the model's folder strangers learn the name alone
                    raise Refused(400, str(error).replace(str(model.spec.path), f"{model.name}/deploy.yaml")) from error
        return Response(body, media_type=MEDIA[wanted.format])

    def close(self) -> None:
        """End all threads."""
        for model in self.models.values():
            model.close()
        self.pool.shutdown()


async def _photo(request: Request) -> bytes:
    """The bytes of the image file in the body."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        async with request.form(max_files=1, max_fields=8) as form:
            for value in form.values():
                if isinstance(value, UploadFile):
                    return await value.read()
        raise Refused(400, "the form has no file. Send the photo as a file, such as curl -F file=@photo.jpg.")
    if kind in ("", "application/octet-stream") or kind.startswith("image/"):
        return await request.body()
    raise Refused(
        415,
        f"bodies of the kind {kind[:40]!r} are not read. Send a multipart/form-data form with a file, or the bytes of "
        "the image with Content-Type: image/jpeg (or another image kind, or application/octet-stream).",
    )


def _application(service: Service) -> FastAPI:
    app = FastAPI(
        title="segkit serve",
        version=__version__,
        description="Semantic segmentation of photos. Errors are JSON: {error: {status, reason, message}}.",
        docs_url=None,  # FastAPI's own pages load their scripts from elsewhere
        redoc_url=None,
    )
    _add_errors(app)
    _add_predictions(app, service)
    _add_health(app, service)
    add_pages(app)
    return app


def _add_predictions(app: FastAPI, service: Service) -> None:
    made = {kind: {} for kind in sorted(set(MEDIA.values()))}
    said = {status: {"description": text} for status, text in _ERRORS.items()}
    route = {
        "tags": ["predictions"],
        "openapi_extra": {"requestBody": _UPLOAD},
        "responses": {200: {"description": "the mask, in the format asked for", "content": made}, **said},
        "response_class": Response,
    }
    what = Query(None, description=f"one of {', '.join(MEDIA)}; default: as the Accept header says, or mask")
    near = Query(0.0, ge=0, le=1000, description="polygons: pixels by which they may leave the outline")

    @app.post("/predict", summary="Segment a photo with the first model", **route)
    async def predict(request: Request, format: Optional[str] = what, tolerance: float = near) -> Response:
        return await service.predict(None, request, format, tolerance)

    @app.post("/v1/models/{name}/predict", summary="Segment a photo", **route)
    async def predict_with(
        name: str, request: Request, format: Optional[str] = what, tolerance: float = near
    ) -> Response:
        return await service.predict(name, request, format, tolerance)

    @app.get("/v1/models", tags=["models"], summary="The models, the default one first")
    async def models() -> dict[str, Any]:
        return {"models": [model.about() for model in service.models.values()]}

    @app.get("/v1/models/{name}", tags=["models"], summary="Classes, colours and input of a model")
    async def model(name: str) -> dict[str, Any]:
        return service.model(name).about()


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", tags=["operation"], summary="200 while the process works")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", tags=["operation"], summary="200 when every model has run once; 503 before, and when stopping")
    async def readyz() -> JSONResponse:
        ready = {name: model.ready for name, model in service.models.items()}
        return JSONResponse({"ready": service.ready, "models": ready}, 200 if service.ready else 503)

    @app.get("/metrics", tags=["operation"], summary="Counters in Prometheus' text format", response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.text(), headers={"content-type": prometheus.TYPE})


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> JSONResponse:
        wait = {"retry-after": str(error.retry_after)} if error.retry_after else {}
        return error_reply(error.status, error.message, wait)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=_GONE)

    @app.exception_handler(InputError)
    async def wrong_input(request: Request, error: InputError) -> JSONResponse:
        return error_reply(400, str(error))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        said = _PLAIN.get(error.status_code, str(error.detail))
        return error_reply(error.status_code, said, error.headers)

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> JSONResponse:
        return error_reply(500, "the server failed at this request. Its log says why.")  # the guard logs it

    @app.exception_handler(RequestValidationError)
    async def parameters(request: Request, error: RequestValidationError) -> JSONResponse:
        said = "; ".join(f"{item['loc'][-1]}: {item['msg']}" for item in error.errors())
        return error_reply(400, f"{said}.")
