"""A server of the API in a process of its own, one for the tests of a file, and what tests ask it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from servers import ApiServer

WAIT_SECONDS = 300  # a machine may be busy with other things
QUICK = {"model": "nano_t2v", "num_inference_steps": 1, "size": "32x32", "num_frames": 5, "seed": 7}


@pytest.fixture(scope="module")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    running = ApiServer(tmp_path_factory.mktemp("api") / "root")
    yield running.start()
    running.stop()


@pytest.fixture
def http(api_server: ApiServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=api_server.url, timeout=120) as client:
        yield client


def create(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    """A new video of nano, as quick as possible."""
    answer = http.post("/v1/videos", json={**QUICK, "prompt": "a red circle", **fields})
    assert answer.status_code == 200, answer.text
    return json.loads(answer.text)


def ended(http: httpx.Client, id: str) -> dict[str, Any]:
    """The video when it is made, or has failed."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        video = http.get(f"/v1/videos/{id}").json()
        if video["status"] in ("completed", "failed"):
            return video
        time.sleep(0.1)
    raise AssertionError(f"{id} has not ended")


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The error in an answer, which has to have a message."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert list(answer.json()) == ["error"]
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error
