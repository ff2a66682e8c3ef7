"""Tools for assistants that speak MCP (Model Context Protocol): over HTTP at `/mcp`, or over stdin and stdout.

Needs the extra `reeltune[mcp]`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Request
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import ToolAnnotations
from pydantic import BaseModel, Field
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reeltune._version import __version__
from reeltune.api.bodies import MAX_JSON_BYTES, Body, read_json
from reeltune.api.definitions import as_summary
from reeltune.api.errors import ApiError
from reeltune.api.private import for_others, values_for_others
from reeltune.api.schema import ModelSummary
from reeltune.api.video_objects import content_path, create, job_of, video_id
from reeltune.errors import ReeltuneError
from reeltune.jobs import Job
from reeltune.service.models import list_models
from reeltune.service.settings_schema import settings_schema
from reeltune.service.video_jobs import VideoStatus, failure_text, followed, notices_of, percent, video_status
from reeltune.service.workspace import Workspace
from reeltune.untrusted import JsonObject

_INSTRUCTIONS = (
    "Makes videos on the user's machine. Choose a model with list_models, look up its settings with get_model, add a "
    "job with generate, then call get_job every few seconds until its status is completed or failed. A video takes "
    "seconds to many minutes. A model that isn't ready downloads its files first, which may be many gigabytes: ask "
    "the user before."
)
_PATH = "/mcp"
_LENGTHS = (b"content-length", b"transfer-encoding")
_READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_ADDS = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
_CANCELS = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False)

AnyContext = Context[Any, Any]
Links = Callable[[AnyContext, Job, int], str]  # the link to one of a job's videos
JobId = Annotated[str, Field(description='The id that generate has returned, such as "video_12".')]
ModelId = Annotated[str, Field(description="The id of a model, from list_models.")]
Prompt = Annotated[str, Field(description="What the video shows.")]
GivenSettings = Annotated[
    dict[str, Any] | None, Field(description="Settings of the model, as get_model describes them; optional.")
]


class ModelDetails(BaseModel):
    """A model, and its settings as JSON Schema."""

    id: str
    name: str
    description: str
    reason: str = Field(description="Why it can't run here; empty if it can.")
    inputs: list[str] = Field(description="The settings with images or videos that it takes.")
    settings: JsonObject


class JobStatus(BaseModel):
    """A job: how far it is, and links to its finished videos."""

    id: str
    model: str
    status: str = Field(description="queued, in_progress, completed or failed.")
    percent: int
    stage: str = ""
    error: str = ""
    notices: list[str] = Field(default_factory=list)
    videos: list[str] = Field(default_factory=list, description="Links to the MP4 files.")


class _Tools:
    """The tools of a workspace. Their docstrings are what assistants read."""

    def __init__(self, workspace: Workspace, links: Links) -> None:
        self._workspace, self._links = workspace, links

    def list_models(self) -> list[ModelSummary]:
        """List the models that videos can be made with. `ready` means that nothing has to be downloaded first."""
        with _refusals(self._workspace):
            return [as_summary(self._workspace, listed) for listed in list_models(self._workspace) if listed.runnable]

    def get_model(self, model: ModelId) -> ModelDetails:
        """Describe a model: what it is, which images or videos it takes, and its settings with their defaults."""
        with _refusals(self._workspace):
            definition = self._workspace.catalog()[model]
            return ModelDetails(
                id=definition.id,
                name=definition.name,
                description=definition.description,
                reason=for_others(self._workspace, self._workspace.blocked(model)),
                inputs=[model_input.key for model_input in definition.architecture.inputs],
                settings=values_for_others(self._workspace, settings_schema(definition)),
            )

    def generate(
        self, context: AnyContext, model: ModelId, prompt: Prompt, settings: GivenSettings = None
    ) -> JobStatus:
        """Add a video to the queue and return its job at once. Call get_job until it is completed or failed."""
        with _refusals(self._workspace):
            body = Body({"model": model, "prompt": prompt, "settings": settings or {}})
            return self._status(context, create(self._workspace, body).job)

    def get_job(self, context: AnyContext, id: JobId) -> JobStatus:
        """Tell how far a job is. When it is completed, `videos` has links to its files."""
        with _refusals(self._workspace):
            return self._status(context, job_of(self._workspace, id))

    def cancel_job(self, context: AnyContext, id: JobId) -> JobStatus:
        """Cancel a job that waits or runs. A running one ends after its current step."""
        with _refusals(self._workspace):
            self._workspace.runner.cancel(job_of(self._workspace, id).id)
            return self._status(context, job_of(self._workspace, id))

    def _status(self, context: AnyContext, job: Job) -> JobStatus:
        job, live = followed(self._workspace, job)
        status = video_status(job)
        return JobStatus(
            id=video_id(job.id),
            model=job.definition,
            status=status.value,
            percent=percent(job, live),
            stage=live.progress.stage if live is not None and live.progress is not None else "",
            error=for_others(self._workspace, failure_text(job)) if status is VideoStatus.FAILED else "",
            notices=values_for_others(self._workspace, notices_of(job, live)),
            videos=[self._links(context, job, number) for number in range(len(job.outputs))],
        )


@contextmanager
def _refusals(workspace: Workspace) -> Iterator[None]:
    """Tell the assistant why something is refused."""
    try:
        yield
    except (ReeltuneError, ApiError) as error:
        raise ToolError(for_others(workspace, str(error))) from error


def build_mcp(workspace: Workspace, links: Links) -> MCPServer[Any]:
    """A server with the tools of a workspace. `links` makes the links to finished videos."""
    server: MCPServer[Any] = MCPServer(
        "reeltune", title="reeltune", version=__version__, instructions=_INSTRUCTIONS, log_level="WARNING"
    )
    tools = _Tools(workspace, links)
    for tool in (tools.list_models, tools.get_model, tools.get_job):
        server.add_tool(tool, annotations=_READS)
    server.add_tool(tools.generate, annotations=_ADDS)
    server.add_tool(tools.cancel_job, annotations=_CANCELS)
    return server


def mount_mcp(app: FastAPI, workspace: Workspace) -> None:
    """Answer MCP at `/mcp` of an application. Each request stands for itself, so that a restart breaks no session."""
    server = build_mcp(workspace, _http_link)
    checked_by_guard = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    inner = server.streamable_http_app(
        streamable_http_path=_PATH,
        stateless_http=True,
        max_request_body_size=MAX_JSON_BYTES,
        transport_security=checked_by_guard,
    )
    for route in inner.routes:
        if isinstance(route, Route):
            route.app = _with_checked_bodies(route.app)
        app.router.routes.append(route)
    app.state.contexts.append(server.session_manager.run())


def _with_checked_bodies(inner: ASGIApp) -> ASGIApp:
    """The application with the limits of size and time that all bodies have, and with values that fit 64 bits."""

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method != "POST":  # GET would open a stream on which nothing is ever sent
            raise ApiError(405, f"{_PATH} is for POST.", code="wrong_method")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise ApiError(415, "Send application/json.", param="content-type", code="unsupported_media_type")
        async with read_json(request) as value:
            content = json.dumps(value, ensure_ascii=False).encode("utf-8")
            length = (b"content-length", str(len(content)).encode("ascii"))
            others = [header for header in scope["headers"] if header[0] not in _LENGTHS]
            await inner({**scope, "headers": [*others, length]}, _replayed(content, receive), send)

    return checked


def _replayed(content: bytes, receive: Receive) -> Receive:
    """The messages of a request whose body has been read."""
    pending: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay


def _http_link(context: AnyContext, job: Job, number: int) -> str:
    """The link to a video on this server, by the address that the client has used.

    Behind a proxy with TLS, that is the address of the proxy, which says so in `x-forwarded-proto`.
    """
    request = context.request_context.request
    if request is None:
        return content_path(job.id, number)
    base = request.base_url
    if request.headers.get("x-forwarded-proto", "").lower() == "https":
        base = base.replace(scheme="https")
    return str(base).rstrip("/") + content_path(job.id, number)


def file_link(workspace: Workspace) -> Links:
    """Links to files, for a client on this machine."""

    def link(_: AnyContext, job: Job, number: int) -> str:
        return (workspace.root / Path(job.outputs[number])).resolve().as_uri()

    return link
