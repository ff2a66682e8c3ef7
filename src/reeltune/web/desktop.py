"""Opening the page in a browser, where somebody sits in front of the screen."""

from __future__ import annotations

import contextlib
import threading
import webbrowser
from collections.abc import Mapping

_REMOTE = ("SSH_CONNECTION", "SSH_TTY")
_SCREENS = ("DISPLAY", "WAYLAND_DISPLAY")


def has_desktop(environment: Mapping[str, str], platform: str, terminal: bool) -> bool:
    """Whether a browser can be expected to show up: not for services, over SSH, or without a screen.

    `terminal`: whether the program's output goes to one.
    """
    if not terminal or any(environment.get(name) for name in _REMOTE):
        return False
    return platform in ("win32", "darwin") or any(environment.get(name) for name in _SCREENS)


def open_browser(url: str) -> None:
    """Open a URL in the user's browser, without waiting for it; the URL is printed anyhow."""

    def opened() -> None:
        with contextlib.suppress(webbrowser.Error, OSError):
            webbrowser.open(url)

    threading.Thread(target=opened, name="reeltune-browser", daemon=True).start()
