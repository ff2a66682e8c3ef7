"""`/api/definitions`: definitions, their settings, and the files that they would use."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter

from reeltune.api.dependencies import Here
from reeltune.api.errors import ApiError
from reeltune.api.schema import DefinitionId, ModelSummary
from reeltune.errors import ReeltuneError
from reeltune.service.fields import initial_settings
from reeltune.service.models import ListedModel, list_models
from reeltune.service.settings_schema import settings_schema
from reeltune.service.workspace import Workspace
from reeltune.untrusted import JsonObject

routes = APIRouter(prefix="/api/definitions", tags=["Definitions"])


@routes.get("", summary="List definitions")
def list_definitions(workspace: Here) -> list[ModelSummary]:
    """All definitions, also those that can't run here, with the reason."""
    return [as_summary(listed) for listed in list_models(workspace)]


@routes.get("/{id}", summary="A definition and its settings")
def retrieve_definition(workspace: Here, id: DefinitionId) -> JsonObject:
    """What the definition says, and its settings as JSON Schema, with their defaults."""
    definition = workspace.catalog()[id]
    reason = workspace.blocked(id)
    return {
        "id": definition.id,
        "name": definition.name,
        "description": definition.description,
        "kind": definition.kind,
        "architecture": definition.architecture.id,
        "family": definition.architecture.family.label,
        "runnable": not reason,
        "reason": reason,
        "versions": {slot: [version.url for version in versions] for slot, versions in definition.all_versions.items()},
        "loras": [lora.url for lora in definition.loras],
        "inputs": [
            {"key": item.key, "kind": item.kind, "required": item.required} for item in definition.architecture.inputs
        ],
        "defaults": initial_settings(definition),
        "settings": settings_schema(definition),
        "notices": [str(problem) for problem in definition.notices],
    }


@routes.get("/{id}/plan", summary="What a definition would use")
def retrieve_plan(workspace: Here, id: DefinitionId) -> JsonObject:
    """The chosen version of each part and the reason, and the files to download: what `reeltune explain` tells."""
    definition = workspace.catalog()[id]
    try:
        plan = workspace.explain(definition)
    except ReeltuneError as error:
        raise ApiError(422, str(error), code="not_runnable") from error
    return _with_relative_paths(workspace, plan.as_json())


def as_summary(listed: ListedModel) -> ModelSummary:
    """A model as lists describe it."""
    summary = listed.summary
    return ModelSummary(
        id=summary.id,
        name=summary.name,
        kind=summary.kind,
        architecture=summary.architecture,
        ready=listed.ready,
        runnable=listed.runnable,
        reason=listed.reason,
        missing_bytes=listed.missing,
    )


def _with_relative_paths(workspace: Workspace, plan: JsonObject) -> JsonObject:
    """The plan with paths relative to the root. Programs of others get only the names of files outside of it."""

    def shown(path: str) -> str:
        relative = workspace.relative(path)
        return relative if workspace.local or not Path(relative).is_absolute() else Path(relative).name

    choices = {slot: {**choice, "file": shown(choice["file"])} for slot, choice in plan["choices"].items()}
    downloads = [{**item, "path": shown(item["path"])} for item in plan["downloads"]]
    return {**plan, "choices": choices, "downloads": downloads}
