"""Serves the page: to this machine only, unless it is protected by names and passwords."""

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
from reeltune.service.studio import UPLOADS, Studio
from reeltune.web.desktop import has_desktop, open_browser
from reeltune.web.login import read_passwords

if TYPE_CHECKING:
    from reeltune.service.cleanup import Cleanup
    from reeltune.web.connections import WebServer

LOCAL = ("127.0.0.1", "localhost", "::1")
_MOST_SESSIONS = 500  # tabs whose state is kept; older ones start anew


@dataclass(frozen=True)
class Serving:
    """How the page is served. `auth_file`: a `name:password` a line. `insecure`: open to others without one.
    `browser`: whether to open one.
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
        """Whether only who owns the machine can reach it: a password means that others do, through a proxy, say."""
        return self.local and self.auth_file is None


def check(serving: Serving) -> tuple[dict[str, str], list[str]]:
    """Names and passwords that open the page, and what to warn of. Raises ServeError where others could reach it
    without one.
    """
    if serving.auth_file is None and not serving.local and not serving.insecure:
        how = "--share makes the page public" if serving.share else f"--host {serving.host} lets others reach the page"
        raise ServeError(
            f"{how}, and nothing protects it.",
            hint="Give --auth-file FILE with a name:password a line, or --insecure if you know who can reach it.",
        )
    return read_passwords(serving.auth_file) if serving.auth_file is not None else ({}, [])


def serve(root: Path, serving: Serving, *, save_quantized: bool = False, say: Callable[[str], None] = print) -> None:
    """Serve until Ctrl-C or SIGTERM. Raises ServeError, QueueError before anything listens.

    `save_quantized` holds while the program runs; the preference stays as it is.
    """
    passwords, warnings = check(serving)
    for line in warnings:
        say(line)
    _, notices = load_preferences(root)
    for line in notices:
        say(line)
    stop = _until_asked()
    with Runner(root, confined=not serving.trusted, save_quantized=save_quantized) as runner:
        studio = Studio(root, runner, local=serving.trusted)
        running = launch(studio, serving, passwords)
        say(f"The page is at {running.url} (Ctrl-C ends it).")
        if serving.browser and has_desktop(os.environ, sys.platform, sys.stdout.isatty()):
            open_browser(running.url)
        stop.wait()
        say("Ending.")
        running.stop()


def _until_asked() -> threading.Event:
    """Set by the first Ctrl-C or SIGTERM; a second Ctrl-C ends the program as it stands."""
    stop = threading.Event()

    def asked(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, asked)
    return stop


@dataclass(frozen=True)
class Running:
    """A page that is served. `url`: where."""

    url: str
    server: WebServer
    cleanup: Cleanup

    def stop(self) -> None:
        """End the server."""
        self.cleanup.stop()
        self.server.stop()


def launch(studio: Studio, serving: Serving, passwords: Mapping[str, str]) -> Running:
    """Start to listen. Raises ServeError where the port can't be had."""
    from reeltune.service.cleanup import Cleanup
    from reeltune.web.connections import WebServer, listen
    from reeltune.web.guard import Guard
    from reeltune.web.login import Login

    listening = listen(serving.host, serving.port)  # first: building the page takes seconds
    try:
        os.environ["GRADIO_TEMP_DIR"] = str(studio.root / UPLOADS)  # read by Gradio whenever it keeps a file
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        page, app = _application(studio)
        login = Login(passwords)
        hosts = LOCAL if serving.trusted else ()
        server = WebServer(Guard(app, page, hosts, login), listening)
        server.start()
    except BaseException:
        listening.close()
        raise
    cleanup = Cleanup(studio, lambda: _drafts(page))
    cleanup.start()
    port = listening.getsockname()[1]
    url = _public_url(page, port) if serving.share else f"http://{_shown(serving.host)}:{port}/"
    return Running(url, server, cleanup)


def _application(studio: Studio) -> tuple[Any, Any]:
    """Gradio's page, and the application that serves it behind the routes of files and uploads."""
    import gradio
    from fastapi import FastAPI
    from starlette.routing import BaseRoute

    from reeltune.service.uploads import MOST_BYTES
    from reeltune.web.markup import asset
    from reeltune.web.media_route import media_route
    from reeltune.web.page import build
    from reeltune.web.theme import theme
    from reeltune.web.upload_route import upload_routes

    page = build(studio)
    page.state_session_capacity = _MOST_SESSIONS
    routes: list[BaseRoute] = [media_route(studio), *upload_routes(studio)]
    app = FastAPI(routes=routes, docs_url=None, redoc_url=None, openapi_url=None)
    gradio.mount_gradio_app(
        app,
        page,
        path="/",
        max_file_size=MOST_BYTES,
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
    page.has_launched = page.is_running = True  # only then does Gradio check which files its events are sent
    return page, app


def _drafts(page: Any) -> list[Any]:
    """What the open pages hold, as plain values."""
    sessions = list(page.state_holder.session_data.values())
    return [value for session in sessions for value in list(session.state_data.values())]


def _shown(host: str) -> str:
    """A host as it stands in a URL that can be opened on this machine."""
    everywhere = {"0.0.0.0": "localhost", "::": "localhost"}
    return f"[{host}]" if ":" in host and host not in everywhere else everywhere.get(host, host)


def _public_url(page: Any, port: int) -> str:
    """The page's address on Gradio's servers, which lead here. Raises ServeError."""
    from gradio.networking import setup_tunnel

    try:
        address: str = setup_tunnel("127.0.0.1", port, page.share_token, None, None)
    except Exception as error:  # Gradio's tunnel raises whatever its download and its process meet
        message = f"--share: the public URL can't be made: {error}."
        raise ServeError(message, hint="Check the network, or leave --share out.") from error
    return address.replace("http://", "https://", 1)
