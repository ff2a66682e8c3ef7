"""MCP over stdin and stdout, for an assistant on this machine that starts this program itself."""

from __future__ import annotations

from pathlib import Path

from reeltune.api.mcp_server import build_mcp, file_link
from reeltune.errors import QueueError
from reeltune.jobs import Runner
from reeltune.service.workspace import Workspace


def serve_stdio(root: Path) -> None:
    """Answer until stdin is closed. Jobs run here, or in the program that already runs those of the root."""
    runner = Runner(root)
    workspace = Workspace(root, runner)
    started = _start(runner)
    try:
        build_mcp(workspace, file_link(workspace)).run("stdio")
    finally:
        if started:
            runner.stop()


def _start(runner: Runner) -> bool:
    """Whether the runner could be started; it can't where another program already makes the videos of the root."""
    try:
        runner.start()
    except QueueError:
        return False
    return True
