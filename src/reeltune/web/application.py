"""The page as a part of an application: Gradio's routes, and those of files and uploads before them."""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI

from reeltune.errors import ServeError
from reeltune.service.drafts import VideoDraft
from reeltune.service.workspace import UPLOADS, Workspace

_MAX_SESSIONS = 500  # browser tabs whose state is stored; older ones start with a new draft


def mount_page(app: FastAPI, workspace: Workspace, *, protected: bool) -> Any:
    """Add the page of a workspace to an application, at "/", and return Gradio's page.

    `protected`: whether its users log in, so that they can log out. Importing Gradio and building the page take
    seconds.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(workspace.root / UPLOADS)  # where Gradio stores files
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio

    from reeltune.service.uploads import MAX_BYTES
    from reeltune.web.markup import asset
    from reeltune.web.media_route import media_route
    from reeltune.web.page import build_page
    from reeltune.web.theme import theme
    from reeltune.web.upload_route import upload_routes

    page = build_page(workspace, protected=protected)
    page.state_session_capacity = _MAX_SESSIONS
    app.router.routes.extend([media_route(workspace), *upload_routes(workspace)])
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
    return page


def open_drafts(page: Any) -> list[VideoDraft]:
    """The drafts of all open pages."""
    sessions = list(page.state_holder.session_data.values())
    values = [value for session in sessions for value in list(session.state_data.values())]
    return [value for value in values if isinstance(value, VideoDraft)]


def public_url(page: Any, port: int) -> str:
    """The public URL of the page on Gradio's servers, which forward requests to it. Raises ServeError."""
    from gradio.networking import setup_tunnel

    try:
        address: str = setup_tunnel("127.0.0.1", port, page.share_token, None, None)
    except Exception as error:  # the tunnel of Gradio raises any kind of error
        message = f"--share: the public URL can't be created: {error}."
        raise ServeError(message, hint="Check the network, or omit --share.") from error
    return address.replace("http://", "https://", 1)
