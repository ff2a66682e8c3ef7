"""Serves the page: to this machine only, unless it is protected by names and passwords."""

from __future__ import annotations

import hmac
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from reeltune.errors import ServeError
from reeltune.jobs import Runner
from reeltune.preferences import load_preferences
from reeltune.web.studio import UPLOADS, Studio

LOCAL = ("127.0.0.1", "localhost", "::1")
_MOST_AUTH_BYTES = 1_000_000


@dataclass(frozen=True)
class Serving:
    """How the page is served. `auth_file`: a `name:password` a line. `insecure`: open to others without one."""

    host: str = "127.0.0.1"
    port: int | None = None
    share: bool = False
    auth_file: Path | None = None
    insecure: bool = False

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the page."""
        return self.host in LOCAL and not self.share


def check(serving: Serving) -> dict[str, str]:
    """Names and passwords that open the page. Raises ServeError where others could reach it without."""
    if serving.auth_file is None and not serving.local and not serving.insecure:
        how = "--share makes the page public" if serving.share else f"--host {serving.host} lets others reach the page"
        raise ServeError(
            f"{how}, and nothing protects it.",
            hint="Give --auth-file FILE with a name:password a line, or --insecure if you know who can reach it.",
        )
    return _passwords(serving.auth_file) if serving.auth_file is not None else {}


def _passwords(path: Path) -> dict[str, str]:
    try:
        if path.stat().st_size > _MOST_AUTH_BYTES:
            raise ServeError(f"{path} is too large for a list of names and passwords.")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise ServeError(f"{path} can't be read: {error}.", hint="Write a name:password a line.") from error
    rows = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    pairs = [row.partition(":") for row in rows]
    if not pairs or not all(name and password for name, _, password in pairs):
        raise ServeError(f"{path} must hold a name:password a line.", hint="Both must be there, and one line at least.")
    return {name: password for name, _, password in pairs}


def _opens(passwords: dict[str, str]) -> Callable[[str, str], bool]:
    """Whether a name and a password fit, in the same time whatever they are."""

    def opens(name: str, password: str) -> bool:
        wanted = passwords.get(name, "")
        return hmac.compare_digest(wanted.encode("utf-8"), password.encode("utf-8")) and bool(wanted)

    return opens


def serve(root: Path, serving: Serving, *, save_quantized: bool = False, say: Callable[[str], None] = print) -> None:
    """Serve until Ctrl-C or SIGTERM. Raises ServeError, QueueError before anything listens.

    `save_quantized` holds while the program runs; the preference stays as it is.
    """
    passwords = check(serving)
    preferences, notices = load_preferences(root)
    for line in notices:
        say(line)
    preferences.use_tokens()
    stop = _until_asked()
    with Runner(root, confined=not serving.local, save_quantized=save_quantized) as runner:
        studio = Studio(root, runner, local=serving.local)
        url = launch(studio, serving, passwords)
        say(f"The page is at {url} (Ctrl-C ends it).")
        stop.wait()
        say("Ending.")


def _until_asked() -> threading.Event:
    """Set by the first Ctrl-C or SIGTERM; a second Ctrl-C ends the program as it stands."""
    stop = threading.Event()

    def asked(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, asked)
    return stop


def launch(studio: Studio, serving: Serving, passwords: dict[str, str]) -> str:
    """Start to listen, and return the page's address. Raises ServeError where the port can't be had."""
    studio.uploads.mkdir(parents=True, exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = str(studio.root / UPLOADS)  # read by Gradio whenever it keeps a file
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from starlette.middleware import Middleware

    from reeltune.web.guard import Guard
    from reeltune.web.markup import asset
    from reeltune.web.page import build
    from reeltune.web.theme import theme
    from reeltune.web.uploads import MOST_BYTES

    page = build(studio)
    hosts = LOCAL if serving.local else ()
    more: dict[str, Any] = {"auth": _opens(passwords)} if passwords else {}
    try:
        _, local_url, share_url = page.launch(
            server_name=serving.host,
            server_port=serving.port,
            share=serving.share,
            prevent_thread_lock=True,
            quiet=True,
            allowed_paths=[str(studio.outputs), str(studio.uploads)],
            max_file_size=MOST_BYTES,
            app_kwargs={"middleware": [Middleware(Guard, hosts=hosts, uploads=studio.uploads)], "docs_url": None},
            footer_links=[],
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            theme=theme(),
            css=asset("page.css"),
            head=f"<style>{asset('frame.css')}</style><script>{asset('lively.js')}{asset('page.js')}</script>",
            **more,
        )
    except OSError as error:
        raise _no_port(serving) from error
    return str(share_url or local_url)


def _no_port(serving: Serving) -> ServeError:
    """What to do where Gradio can't listen; its own error advises settings of Gradio."""
    if serving.port is None:
        message = f"No port of {serving.host} from 7860 on is free."
        return ServeError(message, hint="Choose one with --port, or check --host.")
    message = f"Port {serving.port} of {serving.host} can't be used: another program listens there, or it is reserved."
    return ServeError(message, hint="Choose another with --port, or end that program; it may be a page of this one.")
