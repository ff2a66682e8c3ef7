"""One definition file: parsed, validated, every oddity named with its place and its fix.

The format is WanGP's (https://github.com/deepbeepmeep/Wan2GP, docs/FINETUNES.md), read unchanged: the top
level holds settings, `model` says what the model is.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from reeltune.definitions.jsontext import MAX_BYTES, decode, parse_object
from reeltune.errors import DefinitionInvalid, DefinitionSyntaxError, FileError, Problem
from reeltune.families.vocabulary import KEYS
from reeltune.files import read_bytes
from reeltune.settings import read_settings, unknown_problem
from reeltune.settings.renames import RENAMED
from reeltune.untrusted import clean_text

MODEL_KEY = "model"


def _plain(value: str) -> str:
    """Text that a file system, a log and a terminal can take."""
    if not value.isprintable():
        raise ValueError("text without control characters")
    return value


def _url(value: str) -> str:
    """A link or a path; links by http only, so that a definition can't make the program read local files by one."""
    if "://" in value:
        try:
            parts = urlsplit(_plain(value))
        except ValueError:
            raise ValueError("a link that can be followed") from None
        if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
            raise ValueError("an http(s) link, or a path")
    return _plain(value)


def _readable(value: str) -> str:
    """Text of several lines that a terminal can take."""
    if not value.replace("\n", "").replace("\t", "").replace("\r", "").isprintable():
        raise ValueError("text without control characters")
    return value


_Line = Annotated[str, AfterValidator(_plain)]
_Text = Annotated[str, AfterValidator(_readable)]
_Url = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_url)]
_Sum = Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")]
_Urls = Annotated[
    list[_Url] | str | None,
    Field(description="A list of URLs, or the id of a definition whose list is reused."),
]

# Met in files in the wild: kept as they are; what they ask for is not built (yet), and `check` says so.
LATER_KEYS = frozenset(
    [
        "text_encoder_URLs",
        "VAE_URLs",
        "visible",
        "image_outputs",
        "group",
        "author",
        "settings_dir",
        "profiles_dir",
        "resolutions",
        "configs",
        "finetune_source_model",
        "infos",
        "prompt_infos",
        "model_type",
        "parent_model_type",
        "fps",
        "preload_in_VRAM",
    ]
)


class ModelSection(BaseModel):
    """The `model` object of a definition. A user's file may omit any of it when it overrides a built-in."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: _Line | None = Field(None, description="What the model is called in lists.")
    architecture: _Line | None = Field(None, description="What it derives from: an architecture or a base model.")
    description: _Text | None = Field(None, description="A sentence or two for the person who picks it.")
    URLs: _Urls = Field(None, description="The versions of the transformer.")
    URLs2: _Urls = Field(None, description="The versions of the second transformer (low noise, Wan 2.2).")
    preload_URLs: _Urls = Field(None, description="Files fetched along with the model.")
    modules: list[list[_Url] | _Url] | str | None = Field(
        None, description="Modules merged into the model: lists of URLs, or ids of definitions that have one."
    )
    loras: _Urls = Field(None, description="LoRAs always applied to the model.")
    loras_multipliers: list[str | float | int] | str | None = Field(None, description="One weight for each LoRA.")
    auto_quantize: bool | None = Field(None, description="Quantize a 16-bit version while loading if int8 is wished.")
    components: Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_plain)] | None = Field(
        None, description="Hub repository or folder in diffusers layout that replaces the architecture's."
    )
    sha256: dict[str, _Sum] | None = Field(None, description="Sums of files: file name -> sha256 in hex.")


KNOWN_MODEL_KEYS = frozenset(ModelSection.model_fields) | LATER_KEYS


class _File(BaseModel):
    """A whole file, for the exported JSON Schema."""

    model_config = ConfigDict(extra="allow", title="reeltune finetune definition")

    model: ModelSection


@dataclass(frozen=True)
class DefinitionFile:
    """One file, parsed: its `model` section, its settings by key, and what is worth saying about it."""

    id: str
    path: Path
    model: ModelSection
    settings: Mapping[str, Any]
    notices: tuple[Problem, ...]


def read_definition(path: Path) -> DefinitionFile:
    """Parse a file. Raises DefinitionSyntaxError, or DefinitionInvalid with every problem in it."""
    if clean_text(path.name) != path.name:  # no id of it could be stored, shown or sent
        problem = Problem(clean_text(str(path)), "", "The file's name is not valid UTF-8.", "Rename it.")
        raise DefinitionSyntaxError(problem)
    try:
        raw = read_bytes(path, MAX_BYTES)
    except FileError as error:
        message = error.message.removeprefix(f"{path} ")
        raise DefinitionSyntaxError(Problem(str(path), "", f"The file {message}", error.hint)) from error
    value, notices = parse_object(decode(raw, str(path)), str(path))
    return build_definition(path, value, notices)


def build_definition(path: Path, value: dict[str, Any], notices: list[Problem]) -> DefinitionFile:
    """Validate a parsed object. Raises DefinitionInvalid with every problem in it."""
    file, problems = str(path), []
    section = value.get(MODEL_KEY)
    model = ModelSection()
    if not isinstance(section, dict):
        fix = 'Add "model": {"name": …, "architecture": …, "URLs": […]}.'
        problems.append(Problem(file, MODEL_KEY, "A definition needs a `model` object.", fix))
    else:
        try:
            model = ModelSection.model_validate(section)
        except ValidationError as error:
            problems += [_problem(file, dict(row)) for row in error.errors()]
        notices = notices + _unknown(file, section)
    settings, odd = _settings(file, value)
    if problems:
        raise DefinitionInvalid(_merge(problems))
    return DefinitionFile(path.stem, path, model, settings, tuple(notices + odd))


def _merge(problems: list[Problem]) -> list[Problem]:
    """The innermost problem at each place: of a union, pydantic reports every branch."""
    first: dict[str, Problem] = {}
    for problem in problems:
        first.setdefault(problem.where, problem)
    return [row for where, row in first.items() if not any(other.startswith(f"{where}[") for other in first)]


_WANTED = {
    "URLs": "a list of URLs, or the id of a definition whose list is reused",
    "URLs2": "a list of URLs, or the id of a definition whose list is reused",
    "preload_URLs": "a list of URLs, or the id of a definition whose list is reused",
    "loras": "a list of URLs, or the id of a definition whose list is reused",
    "modules": "a list of modules, each a list of URLs or the id of a definition that has one",
    "loras_multipliers": "a list of numbers, one for each LoRA",
    "auto_quantize": "true or false",
    "sha256": "an object of file names and sums of 64 hexadecimal digits",
}


def _problem(file: str, row: dict[str, Any]) -> Problem:
    key, *rest = row["loc"]
    indices = [f"[{part}]" for part in rest if isinstance(part, int)]
    where = f"{MODEL_KEY}.{key}{''.join(indices)}"
    shown = repr(row["input"])
    shown = shown if len(shown) <= 60 else shown[:57] + "…"
    wanted = str(row["ctx"]["error"]) if row["type"] == "value_error" else _WANTED.get(str(key), "text")
    return Problem(file, where, f"{shown} can't be used here.", f"It must be {wanted}.")


@functools.lru_cache(maxsize=4096)
def nearest(key: str, known: frozenset[str]) -> str:
    """The known name most like `key`, as a question, or an empty string."""
    found = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f"Did you mean {found[0]!r}?" if found else ""


def _unknown(file: str, section: dict[str, Any]) -> list[Problem]:
    odd = [key for key in section if key not in KNOWN_MODEL_KEYS]
    said = "is not known here: kept, not used."
    return [
        Problem(file, f"{MODEL_KEY}.{key}", f"{key!r} {said}", nearest(key, KNOWN_MODEL_KEYS), "warning") for key in odd
    ]


def _settings(file: str, value: dict[str, Any]) -> tuple[Mapping[str, Any], list[Problem]]:
    """The settings of a file, and what is odd about them: an odd value is left out, and the rest counts."""
    stored = read_settings({key: item for key, item in value.items() if key != MODEL_KEY}, file)
    return stored.settings, [*stored.problems, *unknown_problem(stored.unknown, file)]


def json_schema() -> dict[str, Any]:
    """JSON Schema of a definition file, with the settings' names and kinds."""
    schema = _File.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["properties"] |= {key: {"description": row.help} | row.kind.schema for key, row in KEYS.items()}
    older = ((old, newest, KEYS[newest]) for old, newest in RENAMED.items())
    schema["properties"] |= {
        old: {"description": f"Older name of {newest}. {row.help}"} | row.kind.schema for old, newest, row in older
    }
    return schema
