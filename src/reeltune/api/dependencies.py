"""What routes are given beside the fields of their requests."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from reeltune.service.workspace import Workspace


def _workspace(request: Request) -> Workspace:
    workspace = request.app.state.workspace
    assert isinstance(workspace, Workspace)
    return workspace


Here = Annotated[Workspace, Depends(_workspace)]  # the workspace of the application
