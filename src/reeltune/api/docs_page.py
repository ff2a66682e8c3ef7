"""The documentation of the API as one HTML page, made from its OpenAPI document. It needs no script."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from html import escape
from importlib.resources import files
from typing import Any

from reeltune.api.errors import ERROR_CODES
from reeltune.untrusted import JsonObject

_SIMPLE = ("string", "integer", "number", "object")
_METHODS = ("get", "post", "put", "patch", "delete")
_VARIABLES = "In the commands below, `$SERVER` is the address of this server, and `$KEY` one of its keys."
_PICTURES = ("image/png", "image/webp", "image/jpeg", "video/mp4")  # curl saves these to a file


def docs_page(document: JsonObject) -> str:
    """The page for an OpenAPI document."""
    style = files("reeltune.api").joinpath("docs.css").read_text(encoding="utf-8")
    info = document["info"]
    sections = "".join(_section(document, tag) for tag in document["tags"])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])}: HTTP API</title><style>{style}</style></head><body>"
        f"{_contents(document)}<main><header><h1>{escape(info['title'])} {escape(info['version'])}: HTTP API</h1>"
        f"{_paragraphs(info['description'])}{_paragraphs(_VARIABLES)}</header>{sections}{_errors()}{_schemas(document)}</main></body></html>"
    )


def _contents(document: JsonObject) -> str:
    """The list of all sections and operations, beside the page."""
    parts = []
    for tag in document["tags"]:
        rows = "".join(_link(method, operation) for _, method, operation in _operations(document, tag["name"]))
        parts.append(f'<a href="#{_anchor(tag["name"])}">{escape(tag["name"])}</a><ul>{rows}</ul>')
    others = '<a href="#errors">Errors</a><a href="#objects">Objects</a><a href="/openapi.json">OpenAPI document</a>'
    return f'<nav aria-label="Contents">{"".join(parts)}{others}</nav>'


def _link(method: str, operation: JsonObject) -> str:
    anchor, words = _anchor(operation["operationId"]), escape(operation["summary"])
    return f'<li><a href="#{anchor}">{_badge(method)}{words}</a></li>'


def _operations(document: JsonObject, tag: str) -> Iterator[tuple[str, str, JsonObject]]:
    """Path, method and operation of a section, in the order in which the routes were added."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method in _METHODS and tag in operation.get("tags", ()):
                yield path, method, operation


def _section(document: JsonObject, tag: JsonObject) -> str:
    name = tag["name"]
    operations = "".join(_operation(*found) for found in _operations(document, name))
    return (
        f'<section id="{_anchor(name)}"><h2>{escape(name)}</h2>{_paragraphs(tag["description"])}{operations}</section>'
    )


def _operation(path: str, method: str, operation: JsonObject) -> str:
    anchor = _anchor(operation["operationId"])
    content = operation.get("requestBody", {}).get("content", {})
    parts = [
        f'<article id="{anchor}"><h3>{escape(operation["summary"])}<a class="link" href="#{anchor}" '
        f'aria-label="Link to this">#</a></h3><p class="address">{_badge(method)}<code>{_with_breaks(path)}</code></p>',
        _paragraphs(operation.get("description", "")),
        _parameters(operation.get("parameters", [])),
        _body(content),
        f"<pre><code>{escape(_curl(path, method, operation, content))}</code></pre>",
        _answer(operation["responses"]),
        "</article>",
    ]
    return "".join(parts)


def _badge(method: str) -> str:
    return f'<b class="method {method}">{method.upper()}</b>'


def _parameters(parameters: list[JsonObject]) -> str:
    rows = [
        f"<tr><td><code>{escape(item['name'])}</code></td><td>{_kind(item['schema'])}{_limits(item['schema'])}</td>"
        f"<td>{_with_code(item.get('description', ''))}{_example(item['schema'])}</td></tr>"
        for item in parameters
    ]
    return _table("Parameter", rows)


def _body(content: JsonObject) -> str:
    if not content:
        return ""
    first = next(iter(content.values()))
    kinds = " or ".join(f"<code>{escape(kind)}</code>" for kind in content)
    others = ""
    if first["schema"].get("additionalProperties"):
        others = "<p>All other settings of the model are accepted as fields, too.</p>"
    return f"<p>The body is {kinds}.</p>{_properties(first['schema'], sent=True)}{others}"


def _curl(path: str, method: str, operation: JsonObject, content: JsonObject) -> str:
    """A command that sends the request, for a server whose address is in `$SERVER`."""
    words = ["curl"]
    kinds = operation["responses"].get("200", {}).get("content", {})
    if "text/event-stream" in kinds:
        words.append("-N")
    if method == "delete" or (method == "post" and not content):
        words += ["-X", method.upper()]
    words.append(f'"$SERVER{path}"')
    if operation.get("security"):
        words.append('-H "Authorization: Bearer $KEY"')
    for kind, body in list(content.items())[:1]:
        if kind == "application/json":
            words.append(f"-d {shlex.quote(json.dumps(body['example'], ensure_ascii=False))}")
        else:
            words += [f"-F {name}=@{value}" for name, value in body["example"].items()]
    if any(kind in kinds for kind in _PICTURES):
        words.append("-o video.mp4")
    return " ".join(words)


def _answer(responses: JsonObject) -> str:
    """The successful answers, and those of errors whose body isn't the usual one."""
    rows = []
    for status, response in responses.items():
        kinds = [_answer_kind(kind, item) for kind, item in response.get("content", {}).items()]
        if not status.endswith("XX"):
            rows.append(f"<p>Answers <b>{escape(status)}</b>{' with ' if kinds else ''}{' or '.join(kinds)}.</p>")
    return "".join(rows)


def _answer_kind(kind: str, item: JsonObject) -> str:
    schema = item.get("schema")
    words = f"<code>{escape(kind)}</code>"
    return f"{_kind(schema)} as {words}" if schema else words


def _errors() -> str:
    rows = [
        f"<tr><td>{status}</td><td>{_with_code(codes)}</td><td>{_with_code(meaning)}</td></tr>"
        for status, codes, meaning in ERROR_CODES
    ]
    return (
        '<section id="errors"><h2>Errors</h2><p>The body of an error is an <a href="#ErrorAnswer">ErrorAnswer</a>. '
        f"Its <code>code</code> is meant for programs.</p>{_table('Status', rows, kind='Code')}</section>"
    )


def _schemas(document: JsonObject) -> str:
    schemas = document.get("components", {}).get("schemas", {})
    parts = [_schema(name, schema) for name, schema in schemas.items()]
    return f'<section id="objects"><h2>Objects</h2>{"".join(parts)}</section>'


def _schema(name: str, schema: JsonObject) -> str:
    values = f"<p>One of {_kind(schema)}.</p>" if "enum" in schema else ""
    description = _paragraphs(schema.get("description", ""))
    fields = _properties(schema, sent=False)
    return f'<article id="{_anchor(name)}"><h3>{escape(name)}</h3>{description}{values}{fields}</article>'


def _properties(schema: JsonObject, *, sent: bool) -> str:
    """The fields of an object. Those that a client sends may be left out; those of an answer may be null."""
    required = schema.get("required", ())
    rows = []
    for name, value in schema.get("properties", {}).items():
        kind = f"{_limits(value)}{_needed(name in required)}" if sent else _or_null(value)
        meaning = f"{_with_code(value.get('description', ''))}{_example(value)}"
        rows.append(f"<tr><td><code>{escape(name)}</code></td><td>{_kind(value)}{kind}</td><td>{meaning}</td></tr>")
    return _table("Field", rows)


def _or_null(schema: JsonObject) -> str:
    return " <small>or null</small>" if {"type": "null"} in schema.get("anyOf", ()) else ""


def _needed(required: bool) -> str:
    return " <small>required</small>" if required else ""


def _example(schema: JsonObject) -> str:
    found = [f"<code>{escape(str(example))}</code>" for example in schema.get("examples", ())]
    return f" For example {', '.join(found)}." if found else ""


def _table(first: str, rows: list[str], *, kind: str = "Type") -> str:
    if not rows:
        return ""
    head = f'<th scope="col">{first}</th><th scope="col">{kind}</th><th scope="col">Meaning</th>'
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _kind(schema: JsonObject) -> str:
    """The type of a value in words, with links to objects."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return f'<a href="#{_anchor(name)}">{escape(name)}</a>'
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(item) for item in schema["anyOf"] if item.get("type") != "null"))
    if "enum" in schema:
        return ", ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if "const" in schema:
        return f"<code>{escape(str(schema['const']))}</code>"
    kind: Any = schema.get("type", "any")
    if kind == "array":
        item = _kind(schema.get("items", {}))
        return f"list of {item}s" if item in _SIMPLE else f"list of {item}"
    if schema.get("format") == "binary" or "contentMediaType" in schema:
        return "file"
    return escape(str(kind))


def _limits(schema: JsonObject) -> str:
    """The least and the greatest value, and the one that is used where none is given."""
    words = []
    if "minimum" in schema:
        words.append(
            f"{schema['minimum']} to {schema['maximum']}" if "maximum" in schema else f"from {schema['minimum']}"
        )
    default = schema.get("default")
    if default not in (None, "", [], {}):
        words.append(f"default {escape(json.dumps(default).strip(chr(34)))}")
    return f" <small>{', '.join(words)}</small>" if words else ""


def _paragraphs(text: str) -> str:
    """Paragraphs, with code between backticks."""
    return "".join(f"<p>{_with_code(part)}</p>" for part in text.strip().split("\n\n") if part)


def _with_code(text: str) -> str:
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if number % 2 else piece for number, piece in enumerate(pieces))


def _with_breaks(path: str) -> str:
    """A path that may be broken after each slash."""
    return escape(path).replace("/", "/<wbr>")


def _anchor(name: str) -> str:
    return escape(name.replace(" ", "-"))
