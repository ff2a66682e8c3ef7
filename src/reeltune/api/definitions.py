"""`/api/definitions`: definitions, their settings, and the files that they would use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query

from reeltune.api.dependencies import Here
from reeltune.api.errors import ApiError
from reeltune.api.private import for_others, values_for_others
from reeltune.api.schema import DefinitionId, ModelSummary
from reeltune.definitions.configs import selected_id
from reeltune.errors import ReeltuneError
from reeltune.net import values_without_secrets, without_secrets
from reeltune.service.fields import initial_settings
from reeltune.service.models import ListedModel, list_models
from reeltune.service.settings_schema import settings_schema
from reeltune.service.workspace import Workspace
from reeltune.untrusted import JsonObject

Config = Annotated[str, Query(max_length=200, description="The id of a variant, as in the setting `config`.")]
routes = APIRouter(prefix="/api/definitions", tags=["Definitions"])


@routes.get("", summary="List definitions")
def list_definitions(workspace: Here) -> list[ModelSummary]:
    """All definitions that lists show, also those that can't run here, with the reason."""
    return [as_summary(workspace, listed) for listed in list_models(workspace)]


@routes.get("/{id}", summary="A definition and its settings")
def retrieve_definition(workspace: Here, id: DefinitionId) -> JsonObject:
    """What the definition says, and its settings as JSON Schema, with their defaults."""
    definition = workspace.catalog()[id]
    reason, described = workspace.blocked(id), definition.as_json()
    answer = {
        **described,
        **{key: values_without_secrets(described[key]) for key in ("slots", "loras", "preload")},
        "family": definition.architecture.family.label,
        "runnable": not reason,
        "reason": reason,
        "inputs": [
            {"key": item.key, "kind": item.kind, "required": item.required} for item in definition.architecture.inputs
        ],
        "defaults": initial_settings(definition),
        "settings": settings_schema(definition),
    }
    return values_for_others(workspace, answer)


@routes.get("/{id}/plan", summary="What a definition would use")
def retrieve_plan(workspace: Here, id: DefinitionId, config: Config = "") -> JsonObject:
    """The chosen version of each part and the reason, and the files to download: as `reeltune explain` shows them."""
    definition = workspace.catalog()[id]
    try:
        definition = definition.variant(selected_id(config))
        plan = workspace.explain(definition)
    except ReeltuneError as error:
        raise ApiError(422, str(error), code="not_runnable") from error
    return _with_relative_paths(workspace, plan.as_json())


def as_summary(workspace: Workspace, listed: ListedModel) -> ModelSummary:
    """A model as lists describe it."""
    summary = listed.summary
    return ModelSummary(
        id=summary.id,
        name=summary.name,
        kind=summary.kind,
        architecture=summary.architecture,
        ready=listed.ready,
        runnable=listed.runnable,
        reason=for_others(workspace, listed.reason),
        missing_bytes=listed.missing,
    )


def _with_relative_paths(workspace: Workspace, plan: JsonObject) -> JsonObject:
    """The plan with paths relative to the root. Programs of others get only the names of files outside of it."""

    def shown(path: str) -> str:
        relative = workspace.relative(path)
        return relative if workspace.local or not Path(relative).is_absolute() else Path(relative).name

    def cleaned(item: JsonObject, key: str) -> JsonObject:
        return {**item, key: shown(item[key]), "url": without_secrets(item["url"])}

    choices = {slot: cleaned(choice, "file") for slot, choice in plan["choices"].items()}
    rejected = [{**item, "url": without_secrets(item["url"])} for item in plan["rejected"]]
    downloads = [cleaned(item, "path") for item in plan["downloads"]]
    answer = {**plan, "choices": choices, "rejected": rejected, "downloads": downloads}
    return values_for_others(workspace, answer)
