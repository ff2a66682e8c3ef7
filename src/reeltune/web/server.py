"""Serves the page, by default only to this machine; others can reach it if a password protects it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from reeltune.errors import ServeError
from reeltune.jobs import Runner
from reeltune.preferences import load_preferences
from reeltune.service.drafts import VideoDraft
from reeltune.service.workspace import UPLOADS, Workspace
from reeltune.web.desktop import has_desktop, open_browser
from reeltune.web.login import read_passwords

if TYPE_CHECKING:
    from reeltune.service.upload_cleanup import UploadCleanup
    from reeltune.web.connections import WebServer

LOCAL = ("127.0.0.1", "localhost", "::1")
_MAX_SESSIONS = 500  # browser tabs whose state is stored; older ones start with a new draft


@dataclass(frozen=True)
class Serving:
    """How the page is served.

    `share`: also on a public URL. `auth_file`: a file with one `name:password` per line. `insecure`: whether other
    machines may reach the page without a password. `browser`: whether to open the page in a browser.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    share: bool = False
    auth_file: Path | None = None
    insecure: bool = False
    browser: bool = False

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the page."""
        return self.host in LOCAL and not self.share

    @property
    def trusted(self) -> bool:
        """Whether only the owner of this machine can reach the page.

        A page with a password is for others too, even on a local address, as a proxy may forward to it.
        """
        return self.local and self.auth_file is None


def check(serving: Serving) -> tuple[dict[str, str], list[str]]:
    """Passwords by name, and warnings. Raises ServeError if other machines could reach the page without a password."""
    if serving.auth_file is None and not serving.local and not serving.insecure:
        how = "--share makes the page public" if serving.share else f"--host {serving.host} lets others reach the page"
        raise ServeError(
            f"{how}, and nothing protects it.",
            hint="Add --auth-file FILE with one name:password per line, or --insecure to serve it anyway.",
        )
    return read_passwords(serving.auth_file) if serving.auth_file is not None else ({}, [])


def serve(root: Path, serving: Serving, *, save_quantized: bool = False, say: Callable[[str], None] = print) -> None:
    """Serve the page until Ctrl-C or SIGTERM. Raises ServeError, QueueError.

    `save_quantized` overrides the preference, which is not changed. `say` prints a line.
    """
    passwords, warnings = check(serving)
    _, notices = load_preferences(root)
    for line in (*warnings, *notices):
        say(line)
    stop = _stop_event()
    with Runner(root, confined=not serving.trusted, save_quantized=save_quantized) as runner:
        workspace = Workspace(root, runner, local=serving.trusted)
        running = launch(workspace, serving, passwords)
        say(f"The page is at {running.url} (press Ctrl-C to stop).")
        if serving.browser and has_desktop(os.environ, sys.platform, sys.stdout.isatty()):
            open_browser(running.url)
        stop.wait()
        say("Stopping.")
        running.stop()


def _stop_event() -> threading.Event:
    """An event that the first Ctrl-C or SIGTERM sets; a second one ends the program at once."""
    stop = threading.Event()

    def request_stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, request_stop)
    return stop


@dataclass(frozen=True)
class Running:
    """A page that is being served at `url`."""

    url: str
    server: WebServer
    cleanup: UploadCleanup

    def stop(self) -> None:
        """Stop the server."""
        self.cleanup.stop()
        self.server.stop()


def launch(workspace: Workspace, serving: Serving, passwords: Mapping[str, str]) -> Running:
    """Start to serve the page. Raises ServeError if the port is not available."""
    from reeltune.service.upload_cleanup import UploadCleanup
    from reeltune.web.connections import WebServer, listen
    from reeltune.web.guard import Guard
    from reeltune.web.login import Login

    listening = listen(serving.host, serving.port)  # fails early, as building the page takes seconds
    try:
        os.environ["GRADIO_TEMP_DIR"] = str(workspace.root / UPLOADS)  # where Gradio stores files
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        login = Login(passwords)
        page, app = _application(workspace, protected=login.needed)
        hosts = LOCAL if serving.trusted else ()
        server = WebServer(Guard(app, page, hosts, login), listening)
        server.start()
    except BaseException:
        listening.close()
        raise
    cleanup = UploadCleanup(workspace, lambda: _open_drafts(page))
    cleanup.start()
    port = listening.getsockname()[1]
    url = _public_url(page, port) if serving.share else f"http://{_host_in_url(serving.host)}:{port}/"
    return Running(url, server, cleanup)


def _application(workspace: Workspace, *, protected: bool) -> tuple[Any, Any]:
    """Gradio's page, and the application that serves it and the routes of files and uploads."""
    import gradio
    from fastapi import FastAPI
    from starlette.routing import BaseRoute

    from reeltune.service.uploads import MAX_BYTES
    from reeltune.web.markup import asset
    from reeltune.web.media_route import media_route
    from reeltune.web.page import build_page
    from reeltune.web.theme import theme
    from reeltune.web.upload_route import upload_routes

    page = build_page(workspace, protected=protected)
    page.state_session_capacity = _MAX_SESSIONS
    routes: list[BaseRoute] = [media_route(workspace), *upload_routes(workspace)]
    app = FastAPI(routes=routes, docs_url=None, redoc_url=None, openapi_url=None)
    gradio.mount_gradio_app(
        app,
        page,
        path="/",
        max_file_size=MAX_BYTES,
        show_error=False,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=theme(),
        css=asset("page.css"),
        head=f"<style>{asset('frame.css')}</style><script>{asset('lively.js')}{asset('page.js')}</script>",
    )
    page.has_launched = page.is_running = True  # otherwise Gradio does not check the paths of files in events
    return page, app


def _open_drafts(page: Any) -> list[VideoDraft]:
    """The drafts of all open pages."""
    sessions = list(page.state_holder.session_data.values())
    values = [value for session in sessions for value in list(session.state_data.values())]
    return [value for value in values if isinstance(value, VideoDraft)]


def _host_in_url(host: str) -> str:
    """A host as part of a URL that can be opened on this machine."""
    if host in ("0.0.0.0", "::"):
        return "localhost"
    return f"[{host}]" if ":" in host else host


def _public_url(page: Any, port: int) -> str:
    """The public URL of the page on Gradio's servers, which forward requests to it. Raises ServeError."""
    from gradio.networking import setup_tunnel

    try:
        address: str = setup_tunnel("127.0.0.1", port, page.share_token, None, None)
    except Exception as error:  # the tunnel of Gradio raises any kind of error
        message = f"--share: the public URL can't be created: {error}."
        raise ServeError(message, hint="Check the network, or omit --share.") from error
    return address.replace("http://", "https://", 1)
