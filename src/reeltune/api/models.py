"""`/v1/models`: what videos can be made with, as video clients read it."""

from __future__ import annotations

from fastapi import APIRouter

from reeltune.api.dependencies import Here
from reeltune.api.schema import DefinitionId, Model, ModelList
from reeltune.definitions import Definition
from reeltune.service.models import changed, list_models

routes = APIRouter(prefix="/v1/models", tags=["Models"])


@routes.get("", summary="List models")
def list_all(workspace: Here) -> ModelList:
    """The definitions that videos can be made with. Their missing files are downloaded for the first video."""
    catalog = workspace.catalog()
    ids = [listed.summary.id for listed in list_models(workspace) if listed.runnable]
    return ModelList(data=[_as_model(catalog[id]) for id in ids])


@routes.get("/{model_id}", summary="A model")
def retrieve_model(workspace: Here, model_id: DefinitionId) -> Model:
    """Whether videos can be made with a definition, and who wrote it."""
    return _as_model(workspace.catalog()[model_id])


def _as_model(definition: Definition) -> Model:
    owner = "user" if definition.own_file is not None else "reeltune"
    return Model(id=definition.id, created=changed(definition), owned_by=owner)
