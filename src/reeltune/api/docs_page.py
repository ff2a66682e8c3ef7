"""The documentation of the API as one HTML page, made from its OpenAPI document. It needs no script."""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files
from typing import Any

from reeltune.untrusted import JsonObject

_METHODS = ("get", "post", "put", "patch", "delete")


def docs_page(document: JsonObject) -> str:
    """The page for an OpenAPI document."""
    style = files("reeltune.api").joinpath("docs.css").read_text(encoding="utf-8")
    info = document["info"]
    sections = "".join(_section(document, tag) for tag in document["tags"])
    links = "".join(f'<a href="#{_anchor(tag["name"])}">{escape(tag["name"])}</a>' for tag in document["tags"])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])}: HTTP API</title><style>{style}</style></head><body>"
        f"<header><h1>{escape(info['title'])} {escape(info['version'])}: HTTP API</h1>"
        f'{_paragraphs(info["description"])}<nav>{links}<a href="/openapi.json">OpenAPI document</a></nav></header>'
        f"<main>{sections}{_schemas(document)}</main></body></html>"
    )


def _section(document: JsonObject, tag: JsonObject) -> str:
    operations = "".join(
        _operation(path, method, item[method])
        for path, item in document["paths"].items()
        for method in _METHODS
        if method in item and tag["name"] in item[method].get("tags", ())
    )
    name = escape(tag["name"])
    return (
        f'<section id="{_anchor(tag["name"])}"><h2>{name}</h2><p>{escape(tag["description"])}</p>{operations}</section>'
    )


def _operation(path: str, method: str, operation: JsonObject) -> str:
    parts = [
        f"<article><h3><code>{method.upper()} {escape(path)}</code> {escape(operation.get('summary', ''))}</h3>",
        _paragraphs(operation.get("description", "")),
        _parameters(operation.get("parameters", [])),
        _body(operation.get("requestBody", {}).get("content", {})),
        _answer(operation.get("responses", {})),
        "</article>",
    ]
    return "".join(parts)


def _parameters(parameters: list[JsonObject]) -> str:
    rows = [
        f"<tr><td><code>{escape(item['name'])}</code></td><td>{escape(item['in'])}</td>"
        f"<td>{_kind(item['schema'])}</td><td>{escape(item.get('description', ''))}</td></tr>"
        for item in parameters
    ]
    return _table(("parameter", "in", "type", ""), rows)


def _body(content: JsonObject) -> str:
    if not content:
        return ""
    first = next(iter(content.values()))
    kinds = " or ".join(f"<code>{escape(kind)}</code>" for kind in content)
    example = json.dumps(first["example"], indent=2, ensure_ascii=False) if "example" in first else ""
    shown = f"<pre>{escape(example)}</pre>" if example else ""
    return f"<p>The body is {kinds}.</p>{_properties(first['schema'])}{shown}"


def _answer(responses: JsonObject) -> str:
    for status, response in responses.items():
        if status.startswith("2"):
            kinds = [_answer_kind(kind, item) for kind, item in response.get("content", {}).items()]
            return f"<p>Answers {escape(status)}{': ' if kinds else ''}{', '.join(kinds)}.</p>"
    return ""


def _answer_kind(kind: str, item: JsonObject) -> str:
    schema = item.get("schema")
    words = f"<code>{escape(kind)}</code>"
    return f"{_kind(schema)} as {words}" if schema else words


def _schemas(document: JsonObject) -> str:
    schemas = document.get("components", {}).get("schemas", {})
    parts = [_schema(name, schema) for name, schema in schemas.items() if "properties" in schema]
    return f'<section id="objects"><h2>Objects</h2>{"".join(parts)}</section>'


def _schema(name: str, schema: JsonObject) -> str:
    description = _paragraphs(schema.get("description", ""))
    return f'<article id="{_anchor(name)}"><h3>{escape(name)}</h3>{description}{_properties(schema)}</article>'


def _properties(schema: JsonObject) -> str:
    required = schema.get("required", ())
    rows = [
        f"<tr><td><code>{escape(name)}</code></td><td>{_kind(value)}{' (required)' if name in required else ''}</td>"
        f"<td>{escape(value.get('description', ''))}</td></tr>"
        for name, value in schema.get("properties", {}).items()
    ]
    return _table(("field", "type", ""), rows)


def _table(heads: tuple[str, ...], rows: list[str]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{head}</th>" for head in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _kind(schema: JsonObject) -> str:
    """The type of a value in words, with links to objects."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return f'<a href="#{_anchor(name)}">{escape(name)}</a>'
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(item) for item in schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if "const" in schema:
        return f"<code>{escape(str(schema['const']))}</code>"
    kind: Any = schema.get("type", "any")
    if kind == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return escape(str(kind))


def _paragraphs(text: str) -> str:
    """Paragraphs, with code between backticks."""
    return "".join(f"<p>{_with_code(part)}</p>" for part in text.strip().split("\n\n") if part)


def _with_code(text: str) -> str:
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if number % 2 else piece for number, piece in enumerate(pieces))


def _anchor(name: str) -> str:
    return escape(name.lower().replace(" ", "-"))
