"""The schema of the `model` object in a definition file."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


def _plain(value: str) -> str:
    """One line of text without control characters, which could change a terminal or a log."""
    if not value.isprintable():
        raise ValueError("text without control characters")
    return value


def _url(value: str) -> str:
    """A URL or a path; only http(s) URLs, so that a definition can't read local files through other schemes.

    Blanks around a URL, as copied text has, are left out.
    """
    if "://" in value:
        value = value.strip()
        try:
            parts = urlsplit(_plain(value))
        except ValueError:
            raise ValueError("a valid URL") from None
        if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
            raise ValueError("an http(s) URL, or a path")
    return _plain(value)


def _folder(value: str) -> str:
    """The name of one folder, or an empty text; a path could lead out of the folder of all profiles."""
    if not value.isprintable() or any(character in value for character in "/\\:") or value.strip(" .") != value:
        raise ValueError("the name of a folder")
    return value


def _whole(value: object) -> object:
    """A whole number that is written as 24.0 becomes 24; other values are unchanged."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _inner_folder(value: str) -> str:
    """The path of a folder inside of others; it can't lead out of them."""
    parts = value.replace("\\", "/").split("/")
    if not value.isprintable() or ":" in value or ".." in parts or value.startswith(("/", "\\", "~")):
        raise ValueError("the name of a folder below ckpts/")
    return value


def _readable(value: str) -> str:
    """Text of several lines without control characters."""
    if not value.replace("\n", "").replace("\t", "").replace("\r", "").isprintable():
        raise ValueError("text without control characters")
    return value


_Line = Annotated[str, Field(max_length=500), AfterValidator(_plain)]
_Text = Annotated[str, Field(max_length=20_000), AfterValidator(_readable)]
_Url = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_url)]
_Reference = Annotated[str, Field(max_length=4096), AfterValidator(_plain)]
_Folder = Annotated[str, Field(max_length=200), AfterValidator(_folder)]
_Folders = list[_Folder] | _Folder | None
_Sha256 = Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")]
_Urls = Annotated[
    list[_Url] | _Reference | None,
    Field(
        description="A list of URLs, or the id of a definition whose list is used (`id#key`: its list under that key)."
    ),
]


_CONFIGS_SCHEMA: dict[str, Any] = {
    "examples": [{"_name": "Size", "_default_label": "Large", "small": {"name": "Small", "URLs": ["https://…"]}}]
}


class ModelSection(BaseModel):
    """The `model` object of a definition. A file that overrides a built-in definition may omit any of its keys."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: _Line | None = Field(None, description="The model's name in lists.")
    architecture: _Line | None = Field(None, description="The architecture or base model that it derives from.")
    description: _Text | None = Field(None, description="A short description for users who choose a model.")
    URLs: _Urls = Field(None, description="The versions of the transformer.")
    URLs2: _Urls = Field(None, description="The versions of the second transformer (low noise, Wan 2.2).")
    preload_URLs: _Urls = Field(None, description="Files downloaded along with the model.")
    modules: list[list[_Url] | _Url] | _Reference | None = Field(
        None, description="Modules merged into the model: lists of URLs, or ids of definitions with one module."
    )
    loras: _Urls = Field(None, description="LoRAs that are always applied to the model.")
    loras_multipliers: list[str | float | int] | str | None = Field(None, description="One weight for each LoRA.")
    text_encoder_URLs: _Urls = Field(
        None, description="The versions of the text encoder, instead of the architecture's."
    )
    VAE_URLs: _Urls = Field(None, description="The versions of the VAE, instead of the architecture's.")
    text_encoder_folder: Annotated[str, Field(max_length=1024), AfterValidator(_inner_folder)] | None = Field(
        None,
        description="Folder below ckpts/ with the text encoder's tokenizer, and with its weights if none are listed.",
    )
    auto_quantize: bool | None = Field(
        None, description="Quantize a 16-bit version while loading if int8 is preferred."
    )
    components: Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_plain)] | None = Field(
        None, description="Hub repository or folder in diffusers layout, instead of the architecture's components."
    )
    sha256: dict[str, _Sha256] | None = Field(None, description="sha256 of files: file name or URL -> 64 hex digits.")
    visible: bool | None = Field(None, description="Whether lists show it.")
    image_outputs: bool | None = Field(None, description="Whether it makes images instead of videos.")
    resolutions: list[Any] | None = Field(
        None, description="The resolutions it offers: 832x480, or pairs of a label and such a text."
    )
    profiles_dir: _Folders = Field(
        None, description="Folders of its profiles, below profiles/; an empty text for none (default: its model's)."
    )
    profile_dirs: _Folders = Field(None, description="Another name of profiles_dir.")
    fps: Annotated[int, Field(ge=1, le=240), BeforeValidator(_whole)] | None = Field(
        None, description="Frames per second of its videos."
    )
    preload_in_VRAM: Annotated[int, Field(ge=0, le=1_000_000), BeforeValidator(_whole)] | None = Field(
        None, description="Megabytes of the transformer that stay on the card while the rest is streamed to it."
    )
    configs: Annotated[dict[str, Any], Field(max_length=100)] | _Reference | None = Field(
        None,
        description="Named variants, which replace keys of `model`, or the id of a definition whose variants are used.",
        json_schema_extra=_CONFIGS_SCHEMA,
    )
    LTXV_config: _Line | None = Field(
        None, description="The configuration of LTX Video, such as ltxv-13b-0.9.8-distilled.yaml."
    )
    ltx2_pipeline: _Line | None = Field(
        None, description="How LTX-2 makes videos: distilled for a distilled model, or two_stage."
    )
    ltx2_lora_distilled: _Url | None = Field(
        None, description="The LoRA of LTX-2's second pass, instead of the architecture's."
    )
    license: _Line | None = Field(None, description="The license of the weights, by the Hub's name, or other.")
    license_name: _Line | None = Field(None, description="The name of another license.")
    license_link: _Line | None = Field(None, description="The URL of another license.")


# An invalid value of these keys makes the definition unusable; an invalid value of any other key is left out.
ESSENTIAL = frozenset(
    {
        "architecture", "URLs", "URLs2", "preload_URLs", "modules", "loras", "components", "text_encoder_URLs",
        "VAE_URLs", "text_encoder_folder",
    }
)  # fmt: skip

_LIST = "a list of URLs, or the id of a definition whose list is used"
VALID_VALUES = {
    "name": "text of one line",
    "architecture": "text of one line",
    "description": "text",
    "URLs": _LIST,
    "URLs2": _LIST,
    "preload_URLs": _LIST,
    "loras": _LIST,
    "text_encoder_URLs": _LIST,
    "VAE_URLs": _LIST,
    "text_encoder_folder": "the name of a folder below ckpts/",
    "modules": "a list of modules, each a list of URLs or the id of a definition with one module",
    "loras_multipliers": "a list of numbers, one for each LoRA",
    "auto_quantize": "true or false",
    "sha256": "an object of file names and sha256 values of 64 hexadecimal digits",
    "visible": "true or false",
    "image_outputs": "true or false",
    "resolutions": "a list of resolutions such as 832x480",
    "profiles_dir": "the name of a folder, or a list of names",
    "profile_dirs": "the name of a folder, or a list of names",
    "fps": "a number of frames from 1 to 240",
    "preload_in_VRAM": "a number of megabytes from 0 to 1000000",
    "configs": "an object of at most 100 variants, or the id of a definition",
    "LTXV_config": "the name of a configuration, such as ltxv-13b-0.9.8-dev.yaml",
    "ltx2_pipeline": "distilled or two_stage",
    "ltx2_lora_distilled": "a URL",
    "license": "text of one line",
    "license_name": "text of one line",
    "license_link": "text of one line",
}
SHA256 = re.compile("[0-9a-fA-F]{64}")
FILE_KEYS = ("ltx2_lora_distilled",)  # with one file each
LISTS = ("URLs", "URLs2", "preload_URLs", "loras", "modules", "text_encoder_URLs", "VAE_URLs")
