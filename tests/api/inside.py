"""The API and its guard in this process, without a server in front of them, for thousands of requests a minute."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from reeltune.api.app import build_api
from reeltune.jobs import Runner
from reeltune.server.access import Access
from reeltune.server.guard import Guard
from reeltune.server.keys import Keys
from reeltune.server.login import Login
from reeltune.server.serving import LOCAL
from reeltune.service.workspace import Workspace

JSON = {"content-type": "application/json"}


class Inside:
    """The API of a root. Its runner runs nothing, so jobs stay in the queue."""

    def __init__(self, root: Path) -> None:
        for name in ("uploads", "outputs", "finetunes", "loras"):
            (root / name).mkdir(parents=True, exist_ok=True)
        self.root = root
        self.queue = Runner(root).queue
        keys = Keys(())
        self.app = Guard(build_api(Workspace(root, Runner(root))), None, LOCAL, Access(Login({}, keys), keys))
        self._loop = asyncio.new_event_loop()
        self._closed = asyncio.Event()
        # In a thread, as Playwright may have left a running event loop in this one. One task lasts as long as the loop:
        # with a task that ends, the threads of its requests would, too.
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._closed.wait(),))
        self._thread.start()
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=None)

    def ask(self, method: str, path: str, content: Any = b"", headers: dict[str, str] | None = None) -> httpx.Response:
        """The answer to a request. What isn't bytes is sent as JSON."""
        if not isinstance(content, bytes):
            content, headers = json.dumps(content).encode("utf-8"), {**JSON, **(headers or {})}
        return self._run(self._client.request(method, path, content=content, headers=headers))

    def call(
        self,
        path: str,
        headers: dict[str, str],
        receive: Callable[[], Awaitable[dict[str, Any]]],
    ) -> tuple[int, Any]:
        """Status and JSON of a POST whose body comes from a function, as a server passes it on."""
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode("ascii"),
            "query_string": b"",
            "root_path": "",
            "headers": [
                (name.encode(), value.encode("latin-1")) for name, value in {"host": "localhost", **headers}.items()
            ],
            "server": ("localhost", 80),
            "client": ("127.0.0.1", 1),
        }
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        self._run(self.app(scope, receive, send))
        return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent))

    def close(self) -> None:
        self._run(self._client.aclose())
        self._loop.call_soon_threadsafe(self._closed.set)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


@pytest.fixture
def inside(root: Path) -> Iterator[Inside]:
    made = Inside(root)
    yield made
    made.close()


def refusal_of(answer: httpx.Response) -> dict[str, Any]:
    """The error in an answer, which has to blame the request."""
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text[:300])
    return checked_error(answer.json())


def checked_error(body: Any) -> dict[str, Any]:
    """The error in the body of an answer, which has to have the form that clients read."""
    assert list(body) == ["error"]
    error: dict[str, Any] = body["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert isinstance(error["message"], str)
    assert 0 < len(error["message"]) <= 2000
    assert error["type"] in (
        "invalid_request_error", "not_found_error", "rate_limit_error", "authentication_error", "permission_error"
    )  # fmt: skip
    assert error["param"] is None or 0 < len(error["param"]) <= 100
    assert error["code"] is None or isinstance(error["code"], str)
    return error
