"""A real server in a process of its own, and a window of a real Chromium on it; the fixtures that give them."""

from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from servers import Server


class Window:
    """A page with its server: remembers what it asked of other hosts and what went wrong in it."""

    def __init__(
        self, browser: Any, server: Server, width: int = 1280, height: int = 900, *, scheme: str = "light"
    ) -> None:
        self.server = server
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, accept_downloads=True, color_scheme=scheme
        )
        self.page = self.context.new_page()
        self.outside: list[str] = []
        self.errors: list[str] = []
        self.page.set_default_timeout(120_000)  # a machine may be busy with other things
        self.page.on("request", self._asked)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.server.url, "data:", "blob:")):
            self.outside.append(request.url)

    def open(self) -> Any:
        self.page.goto(self.server.url)
        self.page.locator("body[data-opened]").wait_for()
        self.page.locator("#generate").wait_for()
        return self.page

    def close(self) -> None:
        self.context.close()
        assert self.outside == []
        assert self.errors == []


@pytest.fixture(scope="session")
def chromium(request: pytest.FixtureRequest) -> Any:
    """A running Chromium; without one these tests skip, loudly."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        message = "NO CHROMIUM: the page is not tested in a browser here (Debian: apt-get install chromium)"
        print(f"\n*** {message} ***", file=sys.__stderr__)
        pytest.skip(message)
    pytest.importorskip("playwright.sync_api")
    return _browser(request.config, path)


@functools.cache
def _browser(config: pytest.Config, path: str) -> Any:
    """One for the process: every module that imports the fixture has its own, and Playwright runs only once."""
    from playwright.sync_api import sync_playwright

    running = sync_playwright().start()
    config.add_cleanup(running.stop)
    return running.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])


@pytest.fixture(scope="module")
def module_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("web") / "root"


@pytest.fixture(scope="module")
def server(module_root: Path) -> Iterator[Server]:
    """One server for the tests of a file."""
    running = Server(module_root)
    yield running.start()
    running.stop()


@pytest.fixture
def window(chromium: Any, server: Server) -> Iterator[Window]:
    opened = Window(chromium, server)
    yield opened
    opened.close()
