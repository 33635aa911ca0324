"""FRONT DOOR create_app(): the HTTP service around a function that finds objects in a file.

Knows no model: what it is given to call, it calls for one request at a time.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, Field
from starlette.datastructures import UploadFile
from starlette.middleware.trustedhost import TrustedHostMiddleware

from sar_experiments.errors import SarError
from sar_experiments.serve.limits import BodyLimit, SafeHeaders
from sar_experiments.serve.uploads import check_kind, kept_upload, path_below

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from typing import Protocol

    class Detect(Protocol):
        """Finds objects in one image file."""

        def __call__(self, file: Path, *, name: str, overview: bool) -> dict[str, Any]:
            """Return a GeoJSON FeatureCollection; SarError where the file cannot be used."""
            ...


GEOJSON = "application/geo+json"

# The body is read by hand, so that a request that has to go away stores none of it.
UPLOAD_SCHEMA = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "GeoTIFF, PNG or JPEG",
                        }
                    },
                }
            }
        },
    }
}


@dataclass(frozen=True, kw_only=True)
class Service:
    """What the service says of itself, and what it accepts.

    Attributes:
        model: Name of the model.
        weights: Checkpoint it was loaded from.
        device: Where it computes.
        classes: Class names.
        min_scores: Class name -> lowest score that is returned, in [0, 1].
        root: Folder whose files may be asked for by path; None allows none.
        max_megabytes: Largest request.
        max_waiting: Requests that may wait while one is computed; more are turned away.
        hosts: Names by which browsers may call the service, ``*`` for any.
    """

    model: str
    weights: str
    device: str
    classes: tuple[str, ...]
    min_scores: Mapping[str, float]
    root: Path | None
    max_megabytes: float
    max_waiting: int
    hosts: tuple[str, ...]


class Health(BaseModel):
    """The service is up, and with what."""

    status: str
    model: str
    weights: str
    device: str
    classes: list[str]
    min_score: float = Field(description="lowest score that is returned, of any class")
    min_scores: dict[str, float] = Field(description="lowest score that is returned, by class")
    by_path: bool = Field(description="whether files of the server may be asked for by path")
    waiting: int = Field(description="requests under way and waiting")


class ByPath(BaseModel):
    """A file of the server."""

    path: str = Field(description="below the service's root folder", min_length=1, max_length=4096)


class Turns:
    """One request computes, some wait, the rest are told to come again.

    Attributes:
        under_way: Requests that were let in and are not answered yet.
    """

    def __init__(self, max_waiting: int) -> None:
        self.under_way = 0
        self._max = max_waiting + 1
        self._limiter: CapacityLimiter | None = None

    @contextlib.asynccontextmanager
    async def let_in(self) -> AsyncIterator[None]:
        """Let a request in, before a byte of its body is stored.

        Raises:
            HTTPException: 503 where too many wait already.
        """
        if self.under_way >= self._max:
            sentence = f"{self.under_way} requests are under way or waiting; try again later"
            raise HTTPException(503, sentence, headers={"Retry-After": "10"})
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1

    async def run(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Run the work in a thread when its turn has come."""
        self._limiter = self._limiter or CapacityLimiter(1)  # needs a running event loop
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)


def create_app(detect: Detect, service: Service) -> FastAPI:
    """Return the service as an ASGI application.

    Args:
        detect: Called for one request at a time, in a thread.
        service: What it says of itself and accepts.
    """
    app = FastAPIOffline(
        title="sar_experiments",
        description="Finds objects in radar images; returns GeoJSON in longitude and latitude.",
        static_url="/docs-assets",
        redoc_url=None,
    )
    app.add_middleware(BodyLimit, max_bytes=int(service.max_megabytes * 1e6))
    app.add_middleware(SafeHeaders)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(service.hosts))
    app.add_exception_handler(SarError, _unusable)
    app.add_exception_handler(OSError, _disk_trouble)
    app.add_exception_handler(RequestValidationError, _not_understood)
    turns = Turns(service.max_waiting)
    _add_pages(app)
    _add_health(app, service, turns)
    _add_detection(app, detect, service, turns)
    return app


def _add_pages(app: FastAPI) -> None:
    """Serve the page and its script."""
    folder = files("sar_experiments.serve")

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse((folder / "page.html").read_text(encoding="utf-8"))

    @app.get("/page.js", include_in_schema=False)
    async def script() -> Response:
        code = (folder / "page.js").read_text(encoding="utf-8")
        return Response(code, media_type="text/javascript")


def _add_health(app: FastAPI, service: Service, turns: Turns) -> None:
    @app.get("/health")
    async def health() -> Health:
        """Tell that the service is up, which model it has, and how many requests wait."""
        return Health(
            status="ok",
            model=service.model,
            weights=service.weights,
            device=service.device,
            classes=list(service.classes),
            min_score=min(service.min_scores.values()),
            min_scores=dict(service.min_scores),
            by_path=service.root is not None,
            waiting=turns.under_way,
        )


Overview = Annotated[
    bool, Query(description="add a picture of the scene, PNG in base64, under `overview`")
]


def _add_detection(app: FastAPI, detect: Detect, service: Service, turns: Turns) -> None:
    answers: dict[int | str, dict[str, Any]] = {
        200: {"content": {GEOJSON: {}}, "description": "a GeoJSON FeatureCollection"},
        404: {"description": "no such file below the root, or no root"},
        413: {"description": f"larger than {service.max_megabytes:g} MB"},
        415: {"description": "not a TIFF, PNG or JPEG"},
        422: {"description": "an image that cannot be used; the answer says why"},
        507: {"description": "the server's disk is full"},
        503: {"description": "too many requests wait; try again later"},
    }

    @app.post(
        "/detect", responses=answers, response_class=JSONResponse, openapi_extra=UPLOAD_SCHEMA
    )
    async def uploaded(request: Request, overview: Overview = False) -> Response:
        """Find objects in an uploaded image."""
        async with turns.let_in(), request.form(max_files=1, max_fields=1) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise HTTPException(
                    422, "the form needs a file named file: curl -F file=@scene.tif"
                )
            with tempfile.TemporaryDirectory(prefix="sar-serve-") as folder:
                path = await anyio.to_thread.run_sync(kept_upload, file, Path(folder))
                name = Path(file.filename or path.name).name
                found = await turns.run(lambda: detect(path, name=name, overview=overview))
        return JSONResponse(found, media_type=GEOJSON)

    @app.post("/detect/path", responses=answers, response_class=JSONResponse)
    async def by_path(wanted: ByPath, overview: Overview = False) -> Response:
        """Find objects in a file of the server, below the folder that it may read."""
        if service.root is None:
            raise HTTPException(404, "this service reads no files by path: serve.root is not set")
        path = path_below(service.root, wanted.path)
        check_kind(path)
        async with turns.let_in():
            found = await turns.run(lambda: detect(path, name=path.name, overview=overview))
        return JSONResponse(found, media_type=GEOJSON)


async def _not_understood(_request: Request, error: Exception) -> Response:
    """Say what is wrong without repeating it: what was sent may be no text at all."""
    assert isinstance(error, RequestValidationError)
    problems = [
        f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors()
    ]
    return JSONResponse({"detail": "; ".join(problems)}, 422)


async def _disk_trouble(_request: Request, error: Exception) -> Response:
    reason = error.strerror if isinstance(error, OSError) else error
    return JSONResponse({"detail": f"the server cannot store the upload: {reason}"}, 507)


async def _unusable(_request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 422)
