"""The OpenAPI document: complete, valid in itself, the same as in docs/; and the page made from it."""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
from api_serving import api_server, error_of, http

from reeltune.api.errors import _CODES, _STATUSES, ERROR_CODES

PROJECT = Path(__file__).parents[2]
STORED = json.loads((PROJECT / "docs" / "openapi.json").read_text(encoding="utf-8"))
METHODS = {"get", "post", "put", "patch", "delete"}
OPERATIONS = [(path, method, operation) for path, item in STORED["paths"].items() for method, operation in item.items()]


def parts_of(value):
    """All objects in a document."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from parts_of(item)


def resolved(reference):
    found = STORED
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


def test_the_server_answers_with_the_document_in_docs(http):
    assert http.get("/openapi.json").json() == STORED, "run python docs/generate.py"


def test_the_structure_is_that_of_openapi_3_1():
    assert re.fullmatch(r"3\.1\.\d", STORED["openapi"])
    assert {"title", "version", "description"} <= set(STORED["info"])
    assert len(OPERATIONS) >= 20
    assert all(path.startswith("/") and set(item) <= METHODS for path, item in STORED["paths"].items())
    names = [tag["name"] for tag in STORED["tags"]]
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(ids)) == len(ids)
    assert all(operation["tags"][0] in names for _, _, operation in OPERATIONS)
    schemes = STORED["components"]["securitySchemes"]
    assert all(set(need) <= set(schemes) for _, _, operation in OPERATIONS for need in operation.get("security", ()))


def test_every_reference_leads_somewhere_and_every_schema_is_one():
    from jsonschema import Draft202012Validator

    references = [part["$ref"] for part in parts_of(STORED) if "$ref" in part]
    assert len(references) > 20
    assert all(isinstance(resolved(reference), dict) for reference in references)
    for part in parts_of(STORED):
        if isinstance(part.get("schema"), dict):
            Draft202012Validator.check_schema(part["schema"])
    for schema in STORED["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    ("path", "method", "operation"), OPERATIONS, ids=[f"{method} {path}" for path, method, _ in OPERATIONS]
)
def test_an_operation_is_described(path, method, operation):
    assert operation["summary"]
    assert operation["description"].endswith(".")
    successes = [response for status, response in operation["responses"].items() if status.startswith("2")]
    assert successes
    assert all(response["description"] for response in operation["responses"].values())
    assert "204" in operation["responses"] or all(response["content"] for response in successes)
    assert {"4XX", "5XX"} <= set(operation["responses"])
    parameters = operation.get("parameters", [])
    assert all(parameter["description"] for parameter in parameters)
    in_path = [parameter["name"] for parameter in parameters if parameter["in"] == "path"]
    assert in_path == re.findall(r"{(\w+)}", path)
    assert all(parameter["required"] for parameter in parameters if parameter["in"] == "path")
    assert bool(operation.get("security")) is (path != "/healthz")
    for body in operation.get("requestBody", {}).get("content", {}).values():
        assert set(body["example"]) <= set(body["schema"]["properties"])
        assert set(body["schema"]["required"]) <= set(body["example"])


def test_the_examples_of_bodies_are_accepted(http):
    for path in ("/v1/videos", "/v1/videos/{video_id}/remix"):
        [example] = {
            json.dumps(body["example"]) for body in STORED["paths"][path]["post"]["requestBody"]["content"].values()
        }
        if "remix" in path:  # of a video that isn't there
            error_of(http.post(path, content=example), 404)
        else:
            video = http.post(path, content=example, headers={"content-type": "application/json"})
            assert video.status_code == 200, video.text


def test_every_code_of_an_error_is_in_the_table():
    source = PROJECT / "src" / "reeltune" / "api"
    raised = {
        code
        for path in source.glob("*.py")
        for code in re.findall(r"code=\"([a-z_]+)\"", path.read_text(encoding="utf-8"))
    }
    used = raised | {code for _, _, code in _STATUSES} | set(_CODES.values())
    listed = {code for _, codes, _ in ERROR_CODES for code in re.findall(r"`([a-z_]+)`", codes)}
    assert used <= listed
    assert listed - used == {"interrupted", "generation_failed", "refused"}  # ends of jobs; any other error
    by_status = {(status, code) for status, codes, _ in ERROR_CODES for code in re.findall(r"`([a-z_]+)`", codes)}
    assert {(status, code) for _, status, code in _STATUSES} <= by_status


def test_errors_of_the_guard_have_a_code(http, api_server):
    assert error_of(http.get("/v1/models", headers={"origin": "https://evil.example"}), 403)["code"] == "other_site"
    assert error_of(http.get("/v1/models", headers={"host": "evil.example"}), 421)["code"] == "wrong_host"
    assert "Traceback" not in api_server.log()


def test_the_address_of_mcp_is_only_for_post(http):
    assert error_of(http.get("/mcp"), 405)["code"] == "wrong_method"  # a GET would wait for ever
    error_of(http.delete("/mcp"), 405)


class Page(HTMLParser):
    """What the page contains: the names of its elements, its ids and the addresses that it leads to."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.ids, self.addresses, self.handlers = set(), [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            elif name in ("href", "src", "action", "srcset", "poster", "data"):
                self.addresses.append(value)
            elif name.startswith("on"):
                self.handlers.append(name)


def test_the_page_lists_every_operation_without_a_script(http):
    answer = http.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = Page(answer.text)
    assert not page.elements & {"script", "link", "iframe", "img", "object", "form"}
    assert not page.handlers
    assert "://" not in re.sub(r"<pre>.*?</pre>", "", answer.text, flags=re.DOTALL)
    assert "@import" not in answer.text
    assert "url(" not in answer.text
    assert len(set(page.ids)) == len(page.ids)
    for path, method, operation in OPERATIONS:
        assert operation["operationId"] in page.ids
        assert f'"$SERVER{path}"'.replace('"', "&quot;") in answer.text
        assert f'<b class="method {method}">' in answer.text
    missing = {address for address in page.addresses if address.startswith("#")} - {f"#{id}" for id in page.ids}
    assert not missing
    assert {address for address in page.addresses if not address.startswith("#")} == {"/openapi.json"}
    assert "`" not in re.sub(r"<pre>.*?</pre>", "", answer.text, flags=re.DOTALL)
