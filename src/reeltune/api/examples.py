"""Bodies that the API reads itself, described for its OpenAPI document."""

from __future__ import annotations

from reeltune.untrusted import JsonObject

_REFERENCE = {
    "description": "An image or a video that the model starts from: a file of the form, or an object with a `file_id`, "
    "or an `image_url` (a data URL; other URLs only where the server's owner allows them).",
    "anyOf": [
        {"type": "string", "contentMediaType": "application/octet-stream"},
        {"type": "object", "properties": {"file_id": {"type": "string"}, "image_url": {"type": "string"}}},
    ],
}
_PROMPT = {"type": "string", "description": "What the video shows."}
_FIELDS = {
    "prompt": _PROMPT,
    "model": {"type": "string", "description": "The id of a definition, from `/v1/models`."},
    "seconds": {"type": "string", "description": "The length; it is rounded to what the model can make."},
    "size": {"type": "string", "description": "WIDTHxHEIGHT in pixels; rounded as well."},
    "input_reference": _REFERENCE,
    "image_reference": _REFERENCE,
    "video_reference": _REFERENCE,
    "negative_prompt": {"type": "string"},
    "width": {"type": "integer"},
    "height": {"type": "integer"},
    "num_frames": {"type": "integer"},
    "fps": {"type": "integer"},
    "num_inference_steps": {"type": "integer"},
    "guidance_scale": {"type": "number"},
    "guidance_scale_2": {"type": "number", "description": "Guidance of the second phase."},
    "boundary_ratio": {"type": "number", "description": "Where the second phase begins, from 0 to 1."},
    "flow_shift": {"type": "number"},
    "seed": {"type": "integer"},
    "lora": {
        "description": "LoRAs of the root: a name, an object with `name` and `scale`, or a list of them.",
        "anyOf": [{"type": "string"}, {"type": "object"}, {"type": "array", "items": {}}],
    },
    "settings": {"type": "object", "description": "Any settings of the model, as `/api/definitions/{id}` lists them."},
}
_CREATE = {"type": "object", "required": ["prompt"], "properties": _FIELDS, "additionalProperties": True}
_REMIX = {"type": "object", "required": ["prompt"], "properties": {"prompt": _PROMPT}, "additionalProperties": True}
_PLACE = {"type": "integer", "minimum": 0, "description": "The new place among the waiting jobs; 0 is next."}


def _body(schema: JsonObject, example: JsonObject, *kinds: str) -> JsonObject:
    content = {kind: {"schema": schema, "example": example} for kind in kinds}
    return {"requestBody": {"required": True, "content": content}}


_JSON, _FORM = "application/json", "multipart/form-data"
CREATE_VIDEO = _body(
    _CREATE, {"model": "nano_t2v", "prompt": "a red circle moves right", "seconds": "1", "seed": 7}, _JSON, _FORM
)
REMIX_VIDEO = _body(_REMIX, {"prompt": "a blue circle moves right"}, _JSON, _FORM)
UPLOAD_FILE = _body(
    {"type": "object", "required": ["file"], "properties": {"file": {"type": "string", "format": "binary"}}},
    {"file": "fox.png"},
    _FORM,
)
MOVE_JOB = _body({"type": "object", "required": ["place"], "properties": {"place": _PLACE}}, {"place": 0}, _JSON)
