"""A real server in a process of its own, and a window of a real Chromium on it; the fixtures that give them."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

START_SECONDS = 90


class Server:
    """`reeltune ui` of a root, offline unless told otherwise, on a port of its own."""

    def __init__(self, root: Path, *options: str, offline: bool = True) -> None:
        self.root, self.options, self.offline = root, options, offline
        root.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """What is run."""
        command = [sys.executable, "-m", "reeltune", "ui", "--root", str(self.root), "--port", str(self.port)]
        return [*command, *self.options]

    def start(self) -> Server:
        environment = {**os.environ, "HF_HOME": str(self.root / "hf")}
        if self.offline:
            environment["REELTUNE_OFFLINE"] = "1"
        with (self.root / "server.log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), env=environment, stdout=log, stderr=log)
        end = time.monotonic() + START_SECONDS
        while self.status("/") not in (200, 401):
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < end, self.log()
            time.sleep(0.1)
        return self

    def log(self) -> str:
        return (self.root / "server.log").read_text(encoding="utf-8", errors="replace")

    def ask(self, path: str, headers: dict[str, str] | None = None, data: bytes | None = None) -> tuple[int, bytes]:
        """Status and body, whatever they are."""
        request = urllib.request.Request(self.url + path, data=data, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def status(self, path: str) -> int:
        try:
            return self.ask(path)[0]
        except (OSError, urllib.error.URLError):
            return 0

    def kill(self) -> None:
        """As the system does it when memory runs out."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


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
        self.page.set_default_timeout(30_000)
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
