"""Serves the API and the page, by default only to this machine; others can reach them with a key or a password."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from reeltune._quiet import freeze_imported, uncollected
from reeltune.errors import ServeError
from reeltune.jobs import Runner
from reeltune.jobs.chosen import chosen_workers
from reeltune.preferences import load_preferences
from reeltune.server.access import Access
from reeltune.server.desktop import has_desktop, open_browser
from reeltune.server.keys import Keys, read_keys
from reeltune.server.login import Login, read_passwords
from reeltune.service.workspace import Workspace

if TYPE_CHECKING:
    from reeltune.server.connections import WebServer
    from reeltune.service.upload_cleanup import UploadCleanup

LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Serving:
    """What is served, and to whom.

    `share`: also on a public URL. `auth_file`: a file with one `name:password` per line, for visitors of the page.
    `api_key_file`: a file with one key per line, for programs. `insecure`: whether other machines may use everything
    without a password or a key. `page`: whether there is a page besides the API. `browser`: whether to open it.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    share: bool = False
    auth_file: Path | None = None
    insecure: bool = False
    browser: bool = False
    api_key_file: Path | None = None
    page: bool = True

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in LOCAL and not self.share

    @property
    def protected(self) -> bool:
        """Whether a password or a key is needed."""
        return self.auth_file is not None or self.api_key_file is not None

    @property
    def trusted(self) -> bool:
        """Whether only the owner of this machine can reach the server.

        A server with a password or keys is for others too, even on a local address, as a proxy may forward to it.
        """
        return self.local and not self.protected


def check(serving: Serving) -> tuple[Access, list[str]]:
    """Who may use the server, and warnings. Raises ServeError if other machines could without a password or a key."""
    if not serving.protected and not serving.local and not serving.insecure:
        how = "--share makes the server public" if serving.share else f"--host {serving.host} lets others reach it"
        raise ServeError(
            f"{how}, and nothing protects it.",
            hint="Add --auth-file FILE with one name:password per line for the page, --api-key-file FILE with one key "
            "per line for programs, or --insecure to serve it anyway.",
        )
    passwords, warnings = read_passwords(serving.auth_file) if serving.auth_file is not None else ({}, [])
    keys, more_warnings = read_keys(serving.api_key_file) if serving.api_key_file is not None else (Keys(()), [])
    return Access(Login(passwords, keys), keys), [*warnings, *more_warnings]


def serve(
    root: Path,
    serving: Serving,
    *,
    workers: str | None = None,
    ray: str | None = None,
    save_quantized: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Serve until Ctrl-C or SIGTERM. Raises ServeError, QueueError, DeviceError, ClusterError.

    `workers`, `ray`: see `chosen_workers`. `save_quantized` overrides the preference, which is not changed. `say`
    prints a line.
    """
    access, warnings = check(serving)
    _, notices = load_preferences(root)
    for line in (*warnings, *notices):
        say(line)
    handles, cluster = chosen_workers(root, workers, ray, save_quantized=save_quantized)
    stop = _stop_event()
    with Runner(root, confined=not serving.trusted, workers=handles, cluster=cluster) as runner:
        workspace = Workspace(root, runner, local=serving.trusted)
        with uncollected():
            running = launch(workspace, serving, access)
        freeze_imported()
        if serving.page:
            say(f"The page is at {running.url} (press Ctrl-C to stop).")
        say(f"The API is at {running.url}v1, and its documentation at {running.url}docs.")
        if serving.browser and serving.page and has_desktop(os.environ, sys.platform, sys.stdout.isatty()):
            open_browser(running.url)
        try:
            stop.wait()
            say("Stopping.")
        finally:
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
    """What is being served at `url`, which ends with a slash."""

    url: str
    server: WebServer
    cleanup: UploadCleanup
    workspace: Workspace

    def stop(self) -> None:
        """Stop the server."""
        self.cleanup.stop()
        self.workspace.publications.close()
        self.server.stop()


def launch(workspace: Workspace, serving: Serving, access: Access) -> Running:
    """Start to serve. Raises ServeError if the port is not available."""
    from reeltune.api.app import build_api
    from reeltune.server.connections import WebServer, listen
    from reeltune.server.guard import Guard
    from reeltune.service.upload_cleanup import UploadCleanup
    from reeltune.web.application import mount_page, open_drafts, public_url

    listening = listen(serving.host, serving.port)  # fails early, as building the page takes seconds
    port = listening.getsockname()[1]
    local_url = f"http://{_host_in_url(serving.host)}:{port}/"
    try:
        app = build_api(workspace)
        page, gate = None, None
        if serving.page:
            from reeltune.server.page_gate import PageGate  # imports Gradio, which takes 70 MB

            page = mount_page(app, workspace, protected=access.login.needed)
            gate = PageGate(app, page)
        hosts = LOCAL if serving.trusted else ()
        server = WebServer(Guard(app, gate, hosts, access), listening)
        server.start()
    except BaseException:
        listening.close()
        raise
    try:
        url = public_url(page, port) + "/" if serving.share else local_url
    except BaseException:
        server.stop()
        raise
    cleanup = UploadCleanup(workspace, lambda: open_drafts(page) if page is not None else [])
    cleanup.start()
    return Running(url, server, cleanup, workspace)


def _host_in_url(host: str) -> str:
    """A host as part of a URL that can be opened on this machine."""
    if host in ("0.0.0.0", "::"):
        return "localhost"
    return f"[{host}]" if ":" in host else host
