"""The settings of a model as JSON Schema, for programs that build requests or forms of their own."""

from __future__ import annotations

from typing import Any

from reeltune.definitions import Definition
from reeltune.families.vocabulary import KEYS
from reeltune.service.fields import FILE_KINDS, FormField, fields_of, initial_settings, inputs_of
from reeltune.untrusted import JsonObject

_FILE_HELP = "The id of an uploaded file, a data URL, or the path of an earlier output."


def settings_schema(definition: Definition) -> JsonObject:
    """A JSON Schema (2020-12) of the object `settings` in a request, with the defaults of the definition.

    Values are also accepted as text, as forms send them.
    """
    initial = initial_settings(definition)
    fields = [*inputs_of(definition.architecture), *fields_of(definition)]
    properties = {field.key: _property(field, initial.get(field.key)) for field in fields}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Settings of {definition.name}",
        "type": "object",
        "properties": properties,
        "required": [field.key for field in fields if field.required or field.key == "prompt"],
        "additionalProperties": False,
    }


def _property(field: FormField, default: Any) -> JsonObject:
    if field.kind in FILE_KINDS:
        return _file_property(field)
    schema: JsonObject = {**KEYS[field.key].kind.schema, "title": field.label}
    if field.help or KEYS[field.key].help:
        schema["description"] = field.help or KEYS[field.key].help
    if field.kind == "choice":
        schema["enum"] = [value for _, value in field.choices]
        schema.pop("type", None)
    if field.kind == "size":
        schema["examples"] = [value for _, value in field.choices]
    if field.minimum is not None and field.kind != "slider":
        schema["minimum"] = field.minimum
    if default not in (None, ""):
        schema["default"] = default
    return schema


def _file_property(field: FormField) -> JsonObject:
    file: JsonObject = {"type": "string", "description": f"{field.label}. {_FILE_HELP}"}
    if field.kind == "images":
        return {"type": "array", "items": {"type": "string"}, "title": field.label, "description": file["description"]}
    return {**file, "title": field.label}
