"""Opens the page in a browser on machines with a screen."""

from __future__ import annotations

import contextlib
import threading
import webbrowser
from collections.abc import Mapping

_REMOTE = ("SSH_CONNECTION", "SSH_TTY")
_SCREENS = ("DISPLAY", "WAYLAND_DISPLAY")


def has_desktop(environment: Mapping[str, str], platform: str, terminal: bool) -> bool:
    """Whether a browser can be opened: not for services, over SSH, or without a screen.

    `terminal`: whether the output of this program goes to a terminal.
    """
    if not terminal or any(environment.get(name) for name in _REMOTE):
        return False
    return platform in ("win32", "darwin") or any(environment.get(name) for name in _SCREENS)


def open_browser(url: str) -> None:
    """Open a URL in the default browser without waiting for it. Errors are ignored, as the URL is printed too."""

    def opened() -> None:
        with contextlib.suppress(webbrowser.Error, OSError):
            webbrowser.open(url)

    threading.Thread(target=opened, name="reeltune-browser", daemon=True).start()
