"""The fields of a request as settings: the names that video clients use, and every setting under its own name.

settings = settings_of(workspace, definition, Body({"prompt": "a boat", "seconds": "2", "size": "832x480"}))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reeltune.api.bodies import Body
from reeltune.api.errors import ApiError
from reeltune.definitions import Definition
from reeltune.errors import InvalidJSON, SettingsError
from reeltune.families.values import Settings
from reeltune.families.vocabulary import shown
from reeltune.media.kinds import kind_of
from reeltune.service.input_files import stored_input
from reeltune.service.workspace import Workspace
from reeltune.untrusted import JsonObject, parse_json

_UNUSED = ("user", "stream", "response_format")  # fields of OpenAI's other calls, which some clients always send
_IGNORED = frozenset({"model", *_UNUSED})
_RENAMED = {"guidance_scale_2": "guidance2_scale", "fps": "force_fps"}
_REFERENCES = ("input_reference", "image_reference", "video_reference")
_KINDS = {"image": ("image", "images"), "video": ("video",)}  # of a model's inputs, by the kind of a file
_LORA_NAMES = ("name", "path", "local_path", "lora_name", "lora_path")
_MAX_LORAS = 100


@dataclass(frozen=True)
class Mapped:
    """The settings that a request stands for. `names`: the field of the request that each of them comes from."""

    settings: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def add(self, more: Mapping[str, Any], name: str = "") -> None:
        """Add settings from a field. Raises ApiError if one of them has another value already."""
        for key, value in more.items():
            if value is None:
                continue
            if key in self.settings and self.settings[key] != value:
                first, second = self.names[key], name or key
                message = f"{first} and {second} both set {key}, to different values. Send one of them."
                raise ApiError(400, message, param=second, code="invalid_value")
            self.settings[key] = value
            self.names.setdefault(key, name or key)

    @contextmanager
    def checked(self) -> Iterator[None]:
        """Name the fields of the request in errors about settings, as its sender knows no others."""
        try:
            yield
        except SettingsError as error:
            name = self.names.get(error.key, error.key)
            message = str(error).replace(error.key, name) if error.key else str(error)
            raise ApiError(400, message, param=name or None, code="invalid_value") from error


def mapped(workspace: Workspace, definition: Definition, body: Body) -> Mapped:
    """The settings that a request stands for, with its files as paths.

    Raises ApiError for a field that can't be understood and for two that contradict each other, and what
    `stored_input` raises for a file that can't be used.
    """
    found = Mapped()
    rest = {name: value for name, value in body.values.items() if name not in _IGNORED}
    for group in ("settings", "extra_params"):
        found.add(_object(rest.pop(group, None), group))
    _add_length(found, rest)
    _add_size(found, rest)
    found.add(_phases(rest), "boundary_ratio")
    found.add(_loras(rest.pop("lora", None)), "lora")
    for name in _REFERENCES:
        source = _source(name, rest.pop(name, None))
        if source is not None:
            found.add(_reference(definition, name, Path(stored_input(workspace, name, source))), name)
    for name, value in rest.items():
        found.add({_RENAMED.get(name, name): value}, name)
    _add_files(found, definition, body)
    return found


def unused_fields(body: Body) -> list[str]:
    """Notices about fields that are accepted and have no effect."""
    return [f"{name} is not used." for name in _UNUSED if body.values.get(name) not in (None, "", False)]


def _object(value: object, name: str) -> JsonObject:
    """A JSON object, which forms send as text."""
    if value in (None, ""):
        return {}
    if isinstance(value, str):
        value = _parsed(value, name)
    if not isinstance(value, dict):
        raise ApiError(400, f"{name}: a JSON object was expected.", param=name, code="invalid_value")
    return value


def _parsed(text: str, name: str) -> Any:
    try:
        return parse_json(text, name)
    except InvalidJSON as error:
        raise ApiError(400, str(error), param=name, code="invalid_json") from error


def _add_length(found: Mapped, rest: JsonObject) -> None:
    seconds, frames = rest.pop("seconds", None), rest.pop("num_frames", None)
    if seconds not in (None, ""):
        found.add({"video_length": f"{str(seconds).strip().removesuffix('s')}s"}, "seconds")
    if frames not in (None, ""):
        found.add({"video_length": frames}, "num_frames")


def _add_size(found: Mapped, rest: JsonObject) -> None:
    size, width, height = rest.pop("size", None), rest.pop("width", None), rest.pop("height", None)
    if size not in (None, "", "auto"):
        found.add({"resolution": size}, "size")
    if width is None and height is None:
        return
    if width is None or height is None:
        missing = "width" if width is None else "height"
        message = f"{missing} is missing: width and height belong together."
        raise ApiError(400, message, param=missing, code="invalid_value")
    found.add({"resolution": f"{width}x{height}"}, "width")


def _phases(rest: JsonObject) -> Settings:
    ratio = rest.pop("boundary_ratio", None)
    if ratio in (None, ""):
        return {}
    try:
        share = float(ratio)
    except (TypeError, ValueError):
        share = -1.0
    if not 0 <= share <= 1:
        message = f"boundary_ratio is {shown(ratio)}; a number from 0 to 1 was expected."
        raise ApiError(400, message, param="boundary_ratio", code="invalid_value")
    return {"switch_threshold": round(share * 1000)}


def _loras(value: object) -> Settings:
    """LoRAs as names, as objects with a name and a scale, or as a list of those."""
    if value in (None, "", [], {}):
        return {}
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        value = _parsed(value, "lora")
    items = value if isinstance(value, list) else [value]
    if len(items) > _MAX_LORAS:
        raise ApiError(400, f"lora: at most {_MAX_LORAS} can be applied.", param="lora", code="invalid_value")
    pairs = [_lora(item) for item in items]
    return {
        "activated_loras": [name for name, _ in pairs],
        "loras_multipliers": " ".join(weight for _, weight in pairs),
    }


def _lora(item: object) -> tuple[str, str]:
    if isinstance(item, str):
        return item, "1"
    if isinstance(item, dict):
        name = next((item[key] for key in _LORA_NAMES if isinstance(item.get(key), str)), "")
        weight = item.get("scale", item.get("weight", 1))
        if name and not isinstance(weight, bool) and isinstance(weight, int | float | str):
            return name, str(weight).strip() or "1"
    message = 'lora: a name, or an object such as {"name": "turbo.safetensors", "scale": 0.8}, was expected.'
    raise ApiError(400, message, param="lora", code="invalid_value")


def _reference(definition: Definition, name: str, path: Path) -> Settings:
    """The input of the model that an image or a video belongs to: the first one that takes files of its kind."""
    kind = "image" if kind_of(path).image else "video"
    for model_input in definition.architecture.inputs:
        if model_input.kind in _KINDS[kind]:
            return {model_input.key: [str(path)] if model_input.kind == "images" else str(path)}
    takes = ", ".join(model_input.key for model_input in definition.architecture.inputs) or "neither images nor videos"
    message = f"{name}: {definition.name} doesn't use {'an image' if kind == 'image' else 'a video'} like this."
    raise ApiError(400, f"{message} It takes {takes}.", param=name, code="invalid_value")


def _add_files(found: Mapped, definition: Definition, body: Body) -> None:
    """Add the files of a form: under the names of references, or of the model's inputs."""
    inputs = {model_input.key: model_input.kind for model_input in definition.architecture.inputs}
    several: dict[str, list[str]] = {}
    for stored in body.files:
        name = stored.field.removesuffix("[]")
        if name in _REFERENCES:
            found.add(_reference(definition, name, stored.path), name)
        elif inputs.get(name) == "images":
            several.setdefault(name, []).append(str(stored.path))
        else:
            found.add({name: str(stored.path)})
    found.add(several)


def _source(name: str, value: object) -> str | None:
    """What a reference names: the id of a file, a data URL, a URL, or a path among the outputs."""
    if value in (None, "", {}):
        return None
    if isinstance(value, str) and value.lstrip().startswith("{"):
        value = _parsed(value, name)
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        given = [value[key] for key in ("file_id", "image_url", "video_url", "url") if value.get(key)]
        if len(given) == 1:
            inner = given[0].get("url") if isinstance(given[0], dict) else given[0]
            if isinstance(inner, str):
                return inner
    message = f'{name}: a file, or an object such as {{"file_id": "file-…"}}, was expected.'
    raise ApiError(400, message, param=name, code="invalid_value")
