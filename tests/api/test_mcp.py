"""The tools of assistants with the client of the mcp package: over HTTP, and over stdin and stdout."""

import asyncio
import os
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable

import pytest
from api_serving import WAIT_SECONDS, api_server
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from reeltune.jobs import Queue, State
from reeltune.media.mp4 import read_frames
from servers import ApiServer, run_alone

QUICK = {"num_inference_steps": 1, "resolution": "32x32", "video_length": 5, "seed": 7}
SLOW = {"num_inference_steps": 1000, "resolution": "128x128", "video_length": 33}  # minutes
TOOLS = {"list_models", "get_model", "generate", "get_job", "cancel_job"}


def over(target: object, talk: Callable[[Client], Awaitable[None]]) -> None:
    """Let a client talk to a server, as an assistant does."""

    async def run() -> None:
        async with Client(target, read_timeout_seconds=WAIT_SECONDS) as client:
            await talk(client)

    run_alone(run())


@pytest.fixture
def stdio(tmp_path):
    """What an assistant starts."""
    environment = {**os.environ, "REELTUNE_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    return StdioServerParameters(
        command=sys.executable, args=["-m", "reeltune", "mcp", "--root", str(tmp_path / "root")], env=environment
    )


async def told(client, name, **arguments):
    """What a tool answers."""
    result = await client.call_tool(name, arguments)
    assert not result.is_error, result.content
    content = result.structured_content
    return content.get("result", content)


async def ended(client, id):
    end = time.monotonic() + WAIT_SECONDS
    seen = []
    while time.monotonic() < end:
        job = await told(client, "get_job", id=id)
        if job["status"] != "failed":  # nothing is left of one that has failed
            seen.append(job["percent"])
        if job["status"] in ("completed", "failed"):
            assert seen == sorted(seen)
            return job
        await asyncio.sleep(0.1)
    raise AssertionError(f"{id} has not ended: {seen}")


async def make_a_video(client):
    """Everything that an assistant does, from the list of tools to the link."""
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == TOOLS
    assert all(tool.description for tool in tools.values())
    assert set(tools["generate"].input_schema["required"]) == {"model", "prompt"}
    models = {model["id"]: model for model in await told(client, "list_models")}
    assert models["nano_t2v"]["ready"]
    details = await told(client, "get_model", model="nano_i2v")
    assert details["inputs"][0] == "image_start"
    assert details["settings"]["properties"]["num_inference_steps"]["default"] == 20
    job = await told(client, "generate", model="nano_t2v", prompt="a red circle", settings=QUICK)
    assert job["status"] in ("queued", "in_progress")  # it doesn't wait for the video
    done = await ended(client, job["id"])
    assert (done["status"], done["percent"], done["error"]) == ("completed", 100, "")
    (link,) = done["videos"]
    return link


async def cancel_a_video(client):
    job = await told(client, "generate", model="nano_t2v", prompt="a slow one", settings=SLOW)
    waiting = await told(client, "generate", model="nano_t2v", prompt="one behind it", settings=SLOW)
    assert (await told(client, "cancel_job", id=waiting["id"]))["error"] == "The job was cancelled."
    while (await told(client, "get_job", id=job["id"]))["status"] == "queued":
        await asyncio.sleep(0.05)
    await told(client, "cancel_job", id=job["id"])
    assert (await ended(client, job["id"]))["error"] == "The job was cancelled."


async def be_refused(client):
    """Mistakes get words that help an assistant to correct itself."""
    mistakes = [
        ("generate", {"model": "sora", "prompt": "x"}, "sora"),
        ("generate", {"model": "nano_t2v", "prompt": "x", "settings": {"steps": 3}}, "num_inference_steps"),
        ("generate", {"model": "nano_t2v", "prompt": ""}, "prompt is missing"),
        ("generate", {"model": "nano_t2v", "prompt": "x", "settings": {"image_start": "/etc/passwd"}}, "image_start"),
        ("generate", {"model": "nano_t2v"}, "prompt"),
        ("get_job", {"id": "video_999"}, "There is no video"),
        ("get_job", {"id": "../../x"}, "There is no video"),
        ("cancel_job", {"id": "video_999"}, "There is no video"),
        ("get_model", {"model": "../x"}, "../x"),
    ]
    for name, arguments, words in mistakes:
        result = await client.call_tool(name, arguments)
        assert result.is_error, (name, arguments)
        assert words in result.content[0].text, (name, arguments, result.content)


def downloaded(link, path):
    with urllib.request.urlopen(link, timeout=30) as answer:
        path.write_bytes(answer.read())
    return read_frames(path).shape


def test_over_http(api_server: ApiServer, tmp_path):
    async def talk(client):
        link = await make_a_video(client)
        assert link.startswith(api_server.url)
        assert await asyncio.to_thread(downloaded, link, tmp_path / "video.mp4") == (5, 32, 32, 3)
        await cancel_a_video(client)
        await be_refused(client)

    over(f"{api_server.url}/mcp", talk)
    api_server.assert_no_faults()


def test_over_stdio(stdio, tmp_path):
    async def talk(client):
        link = await make_a_video(client)
        assert link.startswith("file:///")
        assert await asyncio.to_thread(downloaded, link, tmp_path / "video.mp4") == (5, 32, 32, 3)
        await cancel_a_video(client)
        await be_refused(client)

    over(stdio, talk)
    states = {job.prompt: job.state for job in Queue(tmp_path / "root").jobs()}
    assert states == {"a red circle": State.DONE, "a slow one": State.CANCELLED, "one behind it": State.CANCELLED}


def test_a_second_program_over_stdio_adds_to_the_queue_of_the_server(api_server: ApiServer, stdio, tmp_path):
    stdio.args[-1] = str(api_server.root)

    async def talk(client):
        assert await asyncio.to_thread(downloaded, await make_a_video(client), tmp_path / "video.mp4") == (5, 32, 32, 3)

    over(stdio, talk)
