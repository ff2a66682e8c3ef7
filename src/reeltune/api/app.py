"""The application of the API: all routes, their errors, and the document that describes them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from anyio import CapacityLimiter
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

from reeltune._version import __version__
from reeltune.api import HEALTH, TOPS, definitions, events, files, jobs, models, videos, workers
from reeltune.api.docs_page import docs_page
from reeltune.api.errors import ApiError, handle_errors, nothing_here
from reeltune.api.examples import METRICS_TEXT
from reeltune.api.metrics import CONTENT_TYPE, metrics_registry, metrics_text
from reeltune.api.private import for_others
from reeltune.api.schema import ErrorAnswer, Health
from reeltune.errors import ReeltuneError
from reeltune.service.changes import QueueLooks
from reeltune.service.workspace import Workspace

_DESCRIPTION = """\
Makes videos with finetunes of Wan, Hunyuan Video, LTX Video, LTX-2 and Kandinsky.

The routes below `/v1` have the shape of OpenAI's API for videos, so its clients work with this server. The routes below
`/api` show definitions and the queue. Assistants that speak MCP find their tools at `/mcp`.

A server that others can reach needs a key in each request: `Authorization: Bearer KEY`. Every error has the form
`{"error": {"message", "type", "param", "code"}}`.
"""
_TAGS = [
    {"name": "Videos", "description": "Make videos, follow them, and download them."},
    {"name": "Files", "description": "Upload images and videos that models start from."},
    {"name": "Models", "description": "What videos can be made with."},
    {"name": "Definitions", "description": "Definitions, their settings, and the files that they would use."},
    {"name": "Queue", "description": "Jobs: the order of those that wait, and what became of the others."},
    {"name": "Workers", "description": "The processes that make the videos, one for each device."},
    {"name": "Server", "description": "Whether the server works, and its numbers."},
]
_ERRORS: dict[int | str, dict[str, Any]] = {"4XX": {"model": ErrorAnswer}, "5XX": {"model": ErrorAnswer}}
_MOST_ADDING = 4  # requests whose settings are checked at once: more would slow down those that only ask
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
# Only describes the key in the OpenAPI document: the guard has checked it already.
_KEY = HTTPBearer(
    auto_error=False,
    scheme_name="key",
    description="One line of --api-key-file. A server without that file needs none.",
)


def build_api(workspace: Workspace) -> FastAPI:
    """The application. It checks neither hosts nor keys: `reeltune.server.guard` stands before it."""
    extensions = AsyncExitStack()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with extensions:
            for context in app.state.contexts:
                await extensions.enter_async_context(context)
            yield

    app = FastAPI(
        title="reeltune",
        version=__version__,
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        lifespan=lifespan,
        responses=_ERRORS,
        separate_input_output_schemas=False,
        generate_unique_id_function=_operation_id,
    )
    contexts: list[AbstractAsyncContextManager[Any]] = []
    app.state.contexts = contexts  # of parts that run as long as the application
    app.state.workspace = workspace
    handle_errors(app)
    app.state.event_streams = set()
    app.state.queue_looks = QueueLooks(workspace)
    app.state.adding = CapacityLimiter(_MOST_ADDING)
    for part in (videos, files, models, definitions, jobs, workers, events):
        app.include_router(part.routes, dependencies=[Depends(_KEY)])
    _add_server_routes(app, workspace)
    _add_mcp(app, workspace)
    _add_missing(app)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name


def _add_server_routes(app: FastAPI, workspace: Workspace) -> None:
    registry = metrics_registry(workspace)

    @app.head(HEALTH, include_in_schema=False)
    @app.get(
        HEALTH,
        tags=["Server"],
        summary="Whether the server works",
        response_model=Health,
        responses={503: {"model": Health, "description": "Jobs can't be added or run; `problem` says why."}},
    )
    def health() -> JSONResponse:
        """Status 200 while jobs can be added and run, else 503. No key is needed."""
        found = _health(workspace)
        return JSONResponse(found.model_dump(), 200 if found.status == "ok" else 503)

    @app.get(
        "/metrics",
        tags=["Server"],
        summary="Numbers for Prometheus",
        response_class=Response,
        responses=METRICS_TEXT,
        dependencies=[Depends(_KEY)],
    )
    def metrics() -> Response:
        """Jobs by state, seconds by stage, bytes downloaded, and memory."""
        return Response(metrics_text(registry), media_type=CONTENT_TYPE)

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()))


def _health(workspace: Workspace) -> Health:
    try:
        workspace.queue.counts()
    except ReeltuneError as error:
        return Health(status="failing", version=__version__, problem=for_others(workspace, error.message))
    if not workspace.runner.alive:
        return Health(status="failing", version=__version__, problem="No thread takes jobs any more.")
    return Health(status="ok", version=__version__)


def _add_mcp(app: FastAPI, workspace: Workspace) -> None:
    """Mount the MCP server at `/mcp` where its package is installed."""
    try:
        from reeltune.api.mcp_server import mount_mcp
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        message = "MCP needs an extra package. Install it with: pip install 'reeltune[mcp]'"

        @app.api_route("/mcp", methods=_METHODS, include_in_schema=False)
        def no_mcp() -> None:
            raise ApiError(501, message, code="not_installed")

        return
    mount_mcp(app, workspace)


def _add_missing(app: FastAPI) -> None:
    """Answer everything else below the addresses of the API, so that no request of a program reaches the page."""
    missing = _Missing(list(app.routes))
    paths = [HEALTH, *(path for top in TOPS for path in (top, f"{top}/{{path:path}}"))]
    app.router.routes += [Route(path, missing, include_in_schema=False) for path in paths]


class _Missing:
    """An ASGI application that refuses requests of all methods, as no route is for them. `known`: all other routes."""

    def __init__(self, known: Sequence[BaseRoute]) -> None:
        self._known = known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raise ApiError: 405 where the address is for other methods, else 404."""
        path = Request(scope).url.path  # without control characters
        scopes = {method: {**scope, "method": method} for method in _METHODS}
        allowed = [
            method
            for method, other in scopes.items()
            if any(route.matches(other)[0] is Match.FULL for route in self._known)
        ]
        if allowed:
            raise ApiError(405, f"{path[:80]} is for {', '.join(allowed)}.", code="wrong_method")
        nothing_here(scope["method"], path)
