"""Bodies that the API reads and writes itself, described for its OpenAPI document."""

from __future__ import annotations

from typing import Any

from reeltune.untrusted import JsonObject

Described = dict[int | str, dict[str, Any]]  # answers by status, as FastAPI takes them

_REFERENCE = {
    "description": "An image or a video that the model starts from: a file of the form, or an object with a `file_id`, "
    "or an `image_url` (a data URL; other URLs only where the server's owner allows them).",
    "anyOf": [
        {"type": "string", "contentMediaType": "application/octet-stream"},
        {"type": "object", "properties": {"file_id": {"type": "string"}, "image_url": {"type": "string"}}},
    ],
}
_LORA = {"type": "object", "properties": {"name": {"type": "string"}, "scale": {"type": "number"}}}
_PROMPT = {"type": "string", "description": "What the video shows."}
_FIELDS = {
    "prompt": _PROMPT,
    "model": {"type": "string", "description": "The id of a definition, from `/v1/models`."},
    "seconds": {"type": "string", "description": "The length; it is rounded to what the model can make."},
    "size": {"type": "string", "description": "WIDTHxHEIGHT in pixels; rounded as well."},
    "input_reference": _REFERENCE,
    "image_reference": {**_REFERENCE, "description": "The same as `input_reference`, by another name."},
    "video_reference": {**_REFERENCE, "description": "The same, with `video_url` in place of `image_url`."},
    "negative_prompt": {"type": "string", "description": "What the video should not show."},
    "width": {"type": "integer", "description": "In place of `size`, together with `height`."},
    "height": {"type": "integer", "description": "In place of `size`, together with `width`."},
    "num_frames": {"type": "integer", "description": "In place of `seconds`."},
    "fps": {"type": "integer", "description": "Frames per second; by default those that the model was trained with."},
    "num_inference_steps": {"type": "integer", "description": "More steps take longer and show more detail."},
    "guidance_scale": {"type": "number", "description": "How closely the video follows the prompt."},
    "guidance_scale_2": {"type": "number", "description": "Guidance of the second phase."},
    "boundary_ratio": {"type": "number", "description": "Where the second phase begins, from 0 to 1."},
    "flow_shift": {"type": "number", "description": "Higher values spend more steps on layout and motion."},
    "seed": {"type": "integer", "description": "The same seed makes the same video again; -1 is random."},
    "lora": {
        "description": "LoRAs of the root: a name, an object with `name` and `scale`, or a list of them.",
        "anyOf": [{"type": "string"}, _LORA, {"type": "array", "items": {"anyOf": [{"type": "string"}, _LORA]}}],
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


def _answer(description: str, *kinds: str) -> Described:
    return {200: {"description": description, "content": {kind: {} for kind in kinds}}}


VIDEO_FILE = _answer("The MP4, or the PNG of a model that makes images.", "video/mp4", "image/png")
VIDEO_OR_PICTURE = _answer("The file, also in parts.", "video/mp4", "image/png", "image/webp", "image/jpeg")
EVENT_STREAM = _answer("Events until the client disconnects.", "text/event-stream")
METRICS_TEXT = _answer("Prometheus' text format.", "text/plain")
