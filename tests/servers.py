"""Real servers in processes of their own: of the page, and of the API alone."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import weakref
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

START_SECONDS = 300  # of a machine that does other things


def run_alone(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in a thread of its own: Playwright may have left a running event loop in this one."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(asyncio.run, coroutine).result()


class Server:
    """`reeltune ui` of a root, offline unless told otherwise, on a port of its own."""

    words = ("ui", "--no-browser")
    started = "/"  # answered as soon as the server has started

    def __init__(self, root: Path, *options: str, offline: bool = True) -> None:
        self.root, self.options, self.offline = root, options, offline
        root.mkdir(parents=True, exist_ok=True)
        # It stays bound, without listening, so that the system gives the port to nobody else, also between two starts.
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        weakref.finalize(self, held.close)
        self.port = held.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """What is run."""
        command = [sys.executable, "-m", "reeltune", *self.words, "--root", str(self.root), "--port", str(self.port)]
        return [*command, *self.options]

    def start(self) -> Server:
        environment = {**os.environ, "HF_HOME": str(self.root / "hf")}
        if self.offline:
            environment["REELTUNE_OFFLINE"] = "1"
        with (self.root / "server.log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), env=environment, stdout=log, stderr=log)
        end = time.monotonic() + START_SECONDS
        while self.status(self.started) not in (200, 401):
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < end, self.log()
            time.sleep(0.1)
        return self

    def log(self) -> str:
        return (self.root / "server.log").read_text(encoding="utf-8", errors="replace")

    def assert_no_faults(self) -> None:
        """Nothing unexpected was logged; else it is shown whole."""
        before, found, after = self.log().partition("Traceback")
        if found:
            raise AssertionError(before[-300:] + found + after[:6000])

    def ask(
        self, path: str, headers: dict[str, str] | None = None, data: bytes | None = None, method: str | None = None
    ) -> tuple[int, bytes]:
        """Status and body, whatever they are."""
        request = urllib.request.Request(self.url + path, data=data, headers=headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
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
                self.process.wait(120)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class ApiServer(Server):
    """`reeltune serve --no-page`."""

    words = ("serve", "--no-page")
    started = "/healthz"
