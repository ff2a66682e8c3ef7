"""A real server and a real Chromium; without one the tests that need it skip, loudly."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import Server, Window


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A running Chromium; without one these tests skip, loudly."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        message = "NO CHROMIUM: the page is not tested in a browser here (Debian: apt-get install chromium)"
        print(f"\n*** {message} ***", file=sys.__stderr__)
        pytest.skip(message)
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


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
