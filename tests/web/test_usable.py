"""A page that is open stays usable whatever comes to lie in its root, over real HTTP."""

import http.client
import json
import os
import secrets
import sqlite3
from pathlib import Path

import pytest

from serving import Server, module_root, server

DEEP = '{"model": ' + "[" * 3000 + "]" * 3000 + "}"
DEFINITIONS = {
    "dangling.json": '{"model": {"name": "A", "architecture": "t2v", "URLs": "nowhere"}}',
    "circle.json": '{"model": {"name": "A", "architecture": "t2v", "URLs": "circle"}}',
    "unknown.json": '{"model": {"name": "A", "architecture": "t9v", "URLs": ["https://h/x.safetensors"]}}',
    "long.json": '{"model": {"name": "A", "architecture": "t2v", "URLs": "t2v"}, "seed": ' + "9" * 310 + "}",
    "surrogate.json": '{"model": {"name": "\\ud800", "architecture": "t2v", "\\udfff": 1, "URLs": "t2v"}, "prompt": "\\ud83d"}',
    "deep.json": DEEP,
    "no.json": "{",
    "list.json": "[1, 2]",
    "empty.json": "",
    "bytes.json": "\ufffd\0",
    "script.json": '{"model": {"name": "<script>alert(1)</script>", "architecture": "t2v", "URLs": "t2v"}}',
}
CONFIGURATIONS = [
    "{",
    "[]",
    '{"outputs": "a\\u0000b"}',
    '{"outputs": 7, "model_folders": {}}',
    '{"model_folders": ["/dev/null", "/nothing", "\\u0000"]}',
    DEEP,
    "\xff",
]


def post(server, path, body):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def markup(shown):
    """The HTML in an answer of the page's clock; choices of lists are text, which the browser never takes for HTML."""
    values = [item.get("value") if isinstance(item, dict) else item for item in json.loads(shown)["data"]]
    found = [value for value in values if isinstance(value, str)]
    assert any("<" in value for value in found)
    return "\n".join(found)


class Visitor:
    """Somebody who opens the page anew each time they look."""

    def __init__(self, server):
        self.server = server
        events = json.loads(server.ask("/config")[1])["dependencies"]
        (self.tick,) = [row for row in events if any(target[1] == "tick" for target in row["targets"])]

    def look(self):
        """Everything that the page's clock shows; fails where a model of the package isn't among it."""
        body = {"fn_index": self.tick["id"], "data": [None] * len(self.tick["inputs"])}
        status, shown = post(self.server, "/gradio_api/run/predict", {**body, "session_hash": secrets.token_hex(6)})
        assert status == 200, shown[:500]
        assert self.server.status("/") == 200
        assert "nano_t2v" in shown, shown[:500]
        self.server.assert_no_faults()
        return shown


@pytest.fixture
def visitor(server):
    return Visitor(server)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_definitions_that_cannot_be_used_leave_the_others(server, visitor, name):
    folder = server.root / "finetunes"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(DEFINITIONS[name], encoding="utf-8")
    visitor.look()
    (folder / "good.json").write_text('{"model": {"name": "Good One", "architecture": "t2v", "URLs": "t2v"}}')
    shown = visitor.look()
    assert "Good One" in shown
    assert "<script>alert" not in markup(shown)
    (folder / "good.json").unlink()
    visitor.look()


def test_files_of_any_name_and_content_leave_the_rest(server, visitor):
    outputs, finetunes = server.root / "outputs", server.root / "finetunes"
    for folder in (outputs, finetunes):
        folder.mkdir(exist_ok=True)
        for suffix in (b".mp4", b".json"):
            for name, content in ((b"/\xff\xfe", b"\0\xff"), (b"/ok \xff", DEFINITIONS["script.json"].encode())):
                Path(os.fsdecode(os.fsencode(folder) + name + suffix)).write_bytes(content)
        os.mkfifo(folder / "pipe.json")
        os.mkfifo(folder / "pipe.mp4")
        (folder / "folder.json").mkdir()
        (folder / "folder.mp4").mkdir()
        (folder / "loop.json").symlink_to(folder / "loop.json")
        (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
        (folder / "<b onclick=alert(1)>.mp4").write_bytes(b"\0\0\0\x18ftypisom" + os.urandom(50))
        visitor.look()
    assert "<b onclick" not in visitor.look()


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_configurations_that_cannot_be_read_leave_a_page(server, visitor, text):
    path = server.root / "reeltune.json"
    try:
        path.write_bytes(text.encode("latin-1"))
        visitor.look()
    finally:
        path.unlink()
    visitor.look()


def test_jobs_of_damaged_rows_leave_the_queue(server, visitor):
    with sqlite3.connect(server.root / "reeltune.sqlite", timeout=10) as connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(jobs)") if row[1] != "id"]
        for odd in (b"\xff", "\0", "{", "[" * 5000, 1e308, -1):
            values = {
                "definition": odd,
                "settings": odd,
                "state": "done",
                "position": 1,
                "created": odd,
                "finished": odd,
                "error": odd,
            }
            values = {name: value for name, value in values.items() if name in names}
            marks = ", ".join("?" * len(values))
            connection.execute(f"INSERT INTO jobs ({', '.join(values)}) VALUES ({marks})", [*values.values()])
    connection.close()
    visitor.look()
