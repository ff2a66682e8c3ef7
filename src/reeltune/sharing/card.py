"""The card of a published model: README.md, with everything that reeltune writes between markers.

A card that exists keeps every character outside the markers. Where it has none, they are added: to its metadata and at
its end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reeltune._text import shortened, size
from reeltune.families.values import Settings
from reeltune.sharing.examples import Example
from reeltune.sharing.licenses import OTHER, License
from reeltune.untrusted import clean_text

NAME = "README.md"
MAX_BYTES = 2_000_000
_BEGIN, _END = "<!-- reeltune: begin -->", "<!-- reeltune: end -->"
_YAML_BEGIN, _YAML_END = "# reeltune: begin", "# reeltune: end"
_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_YAML_BLOCK = re.compile(
    rf"^{re.escape(_YAML_BEGIN)}[ \t]*\r?\n.*?^{re.escape(_YAML_END)}[ \t]*\r?\n", re.DOTALL | re.MULTILINE
)
_YAML_KEY = re.compile(r"^([A-Za-z_][\w-]*)[ \t]*:", re.MULTILINE)
_BODY_BLOCK = re.compile(rf"{re.escape(_BEGIN)}.*?{re.escape(_END)}", re.DOTALL)
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~!])")
_MAX_TEXT = 4_000  # characters of a description or a prompt
_VERSIONS = {
    "bf16": "16 bits (bf16)",
    "fp16": "16 bits (fp16)",
    "fp32": "32 bits",
    "int8-bf16": "int8, computes in bf16",
    "int8-fp16": "int8, computes in fp16, for graphics cards without bf16",
}


@dataclass(frozen=True)
class CardFile:
    """A line of the table of versions. `role`: such as "transformer". `url`: where it is downloaded from."""

    name: str
    role: str
    version: str
    bytes: int | None
    sha256: str
    url: str


@dataclass(frozen=True)
class CardFacts:
    """What a card tells. `base_model`, `relation`: the repository that the model is based on, and how."""

    title: str
    description: str
    license: License
    base_model: str
    relation: str
    pipeline: str
    files: Sequence[CardFile]
    settings: Settings
    examples: Sequence[Example]
    definition_url: str
    definition_id: str


def card_text(existing: str | None, facts: CardFacts) -> str:
    """The text of the card. `existing`: the text that the repository has; None if it has none."""
    metadata = _metadata(facts)
    body = f"{_BEGIN}\n{_body(facts)}\n{_END}"
    if existing is None:
        yaml = _yaml(metadata)
        return f"---\n{_YAML_BEGIN}\n{yaml}{_YAML_END}\n---\n\n# {_plain(facts.title)}\n\n{body}\n"
    text = _with_metadata(existing, metadata)
    if _BODY_BLOCK.search(text):
        return _BODY_BLOCK.sub(lambda _: body, text, count=1)
    return f"{text.rstrip()}\n\n{body}\n"


def _with_metadata(text: str, metadata: Mapping[str, object]) -> str:
    """A card with the keys of `metadata` that its author hasn't written, between markers in the front matter."""
    match = _FRONT_MATTER.match(text)
    if match is None:
        return f"---\n{_YAML_BEGIN}\n{_yaml(metadata)}{_YAML_END}\n---\n\n{text}"
    own = _YAML_BLOCK.sub("", match[1])
    written = set(_YAML_KEY.findall(own))
    block = (
        f"{_YAML_BEGIN}\n{_yaml({key: value for key, value in metadata.items() if key not in written})}{_YAML_END}\n"
    )
    has_block = _YAML_BLOCK.search(match[1]) is not None
    front = _YAML_BLOCK.sub(lambda _: block, match[1], count=1) if has_block else match[1] + block
    return text[: match.start(1)] + front + text[match.end(1) :]


def _yaml(values: Mapping[str, object]) -> str:
    """Values as YAML. JSON is YAML, so every value is written as JSON."""
    return "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())


def _metadata(facts: CardFacts) -> dict[str, object]:
    values: dict[str, object] = {"license": facts.license.id}
    if facts.license.id == OTHER:
        values |= {"license_name": facts.license.name, "license_link": facts.license.link}
    if facts.base_model:
        values |= {"base_model": facts.base_model, "base_model_relation": facts.relation}
    values |= {"pipeline_tag": facts.pipeline, "library_name": "diffusion-single-file", "tags": ["reeltune", "video"]}
    if facts.examples:
        values["widget"] = [
            {"text": _text(example.prompt), "output": {"url": example.file.name}} for example in facts.examples
        ]
    return values


def _body(facts: CardFacts) -> str:
    parts = []
    if facts.description:
        parts.append(_plain(facts.description))
    parts.append(_usage(facts))
    parts.append(_versions(facts))
    if facts.settings:
        rows = "\n".join(f"| `{key}` | {_value(value)} |" for key, value in facts.settings.items())
        parts.append(f"## Settings\n\n| setting | value |\n|---|---|\n{rows}")
    if facts.examples:
        videos = "\n\n".join(
            f'<video controls loop src="{example.file.name}"></video>\n\n> {_plain(example.prompt, line=True)}'
            for example in facts.examples
        )
        parts.append(f"## Examples\n\n{videos}")
    return "\n\n".join(parts)


def _usage(facts: CardFacts) -> str:
    id = facts.definition_id
    return (
        "## How to use it\n\nWith reeltune:\n\n"
        f'```sh\nreeltune add {facts.definition_url}\nreeltune generate {id} "your prompt"\n```\n\n'
        f"`{id}.json` is a finetune definition, which WanGP reads, too: put it into its folder `finetunes`."
    )


def _versions(facts: CardFacts) -> str:
    rows = [
        f"| [{_plain(file.name, line=True)}]({file.url}) | {_use(file)} | {size(file.bytes) if file.bytes else ''} | "
        f"{f'`{file.sha256}`' if file.sha256 else ''} |"
        for file in facts.files
    ]
    return "## Versions\n\n| file | what it is | size | sha256 |\n|---|---|---|---|\n" + "\n".join(rows)


def _use(file: CardFile) -> str:
    version = _VERSIONS.get(file.version, file.version)
    role = {"transformer": "", "transformer_2": "low noise", "preload": "further file", "loras": "LoRA"}
    words = [role.get(file.role, _plain(file.role)), version]
    return ", ".join(word for word in words if word)


def _text(text: str) -> str:
    return clean_text(shortened(text, _MAX_TEXT))


def _plain(text: str, *, line: bool = False) -> str:
    """A text that Markdown shows as it is. `line`: in one line."""
    escaped = _MARKDOWN.sub(r"\\\1", _text(text))
    return " ".join(escaped.split()) if line else escaped


def _value(value: object) -> str:
    written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _plain(written, line=True)
