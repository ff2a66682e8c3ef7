"""`update`: what changed upstream, in words, and applied without losing the user's own values."""

import json

import pytest

from reeltune import load_catalog
from reeltune.definitions.jsontext import remove_value
from reeltune.errors import DefinitionError
from reeltune.preferences import Preferences
from reeltune.sharing.incoming import read_incoming
from reeltune.sharing.installing import describe, install
from reeltune.sharing.updating import apply_update, find_update, installed
from sharing_roots import command

MODEL = {"name": "Shared", "architecture": "t2v_1.3B", "URLs": ["https://h.example/a_bf16.safetensors"]}
TEXT = json.dumps({"model": MODEL, "prompt": "a fox", "num_inference_steps": 20, "seed": 3}, indent=2)


@pytest.fixture
def upstream(server, root):
    """A definition that was installed from a server; `upstream(text)` changes it there."""

    def change(text):
        server.files["/x.json"] = text.encode()

    change(TEXT)
    catalog = load_catalog(root)
    incoming = read_incoming(f"{server.url}/x.json", Preferences())
    install(catalog, describe(catalog, incoming, Preferences(), sizes=False))
    return change


def found(root):
    return find_update(load_catalog(root), "x", Preferences())


def words(update):
    return [change.words for change in update.changes]


def test_nothing_has_changed(root, upstream):
    assert list(installed(load_catalog(root))) == ["x"]
    assert found(root) is None


def test_changes_in_words(root, upstream):
    model = MODEL | {"URLs": ["https://h.example/b_bf16.safetensors?token=s3cret"], "description": "New."}
    upstream(json.dumps({"model": model, "prompt": "a fox", "num_inference_steps": 8, "guidance_scale": 2}))
    update = found(root)
    assert words(update) == [
        "model.URLs: https://h.example/b_bf16.safetensors is added; "
        "model.URLs: https://h.example/a_bf16.safetensors is removed",
        "num_inference_steps: 20 becomes 8",
        "seed is gone; it was 3",
        'model.description is new: "New."',
        "guidance_scale is new: 2",
    ]
    assert not update.edited
    assert apply_update(update) == ()
    assert (root / "finetunes" / "x.json").read_text() == update.shared.text
    assert found(root) is None


def test_values_of_the_user_stay(root, upstream):
    path = root / "finetunes" / "x.json"
    path.write_text(
        path.read_text()
        .replace("20", "30")
        .replace("a fox", "a cat")
        .replace('"seed": 3', '"seed": 3,\n  "flow_shift": 4')
    )
    upstream(TEXT.replace("20", "8").replace('"seed": 3', '"guidance_scale": 2'))
    update = found(root)
    assert [change.key_path for change in update.changes if change.conflict] == [("num_inference_steps",)]
    assert apply_update(update) == ("num_inference_steps",)
    value = json.loads(path.read_text())
    assert value == {"model": MODEL, "prompt": "a cat", "num_inference_steps": 30, "flow_shift": 4, "guidance_scale": 2}
    assert found(root) is None


def test_force_takes_the_authors_values(root, upstream):
    path = root / "finetunes" / "x.json"
    path.write_text(path.read_text().replace("20", "30"))
    upstream(TEXT.replace("20", "8"))
    assert apply_update(found(root), force=True) == ()
    assert json.loads(path.read_text())["num_inference_steps"] == 8


def test_an_update_that_can_not_be_used_changes_nothing(root, upstream):
    path = root / "finetunes" / "x.json"
    before = path.read_bytes()
    for text in ("{", "<html>", json.dumps({"model": MODEL | {"URLs": ["/home/them/x.safetensors"]}})):
        upstream(text)
        answer = command(root, "update", "x", "--yes")
        assert answer.returncode == 1, answer.stdout
        assert path.read_bytes() == before


def test_definitions_without_a_source(root, define):
    define("own", MODEL)
    with pytest.raises(DefinitionError, match="not installed from a URL"):
        find_update(load_catalog(root), "own", Preferences())
    with pytest.raises(DefinitionError, match="not installed from a URL"):
        find_update(load_catalog(root), "t2v", Preferences())
    (root / "finetunes" / "own.source").write_text("{")
    assert installed(load_catalog(root)) == {}
    assert "No definition was installed" in command(root, "update").stdout


def test_the_command_asks(root, upstream):
    upstream(TEXT.replace("20", "8"))
    answer = command(root, "update", stdin="n\n")
    assert "num_inference_steps: 20 becomes 8" in answer.stdout
    assert "20" in (root / "finetunes" / "x.json").read_text()
    answer = command(root, "update", stdin="y\n")
    assert answer.returncode == 0, answer.stderr
    assert "x: updated." in answer.stdout
    assert "x: nothing has changed." in command(root, "update").stdout


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ('{"a": 1, "b": 2}', ("a",), '{"b": 2}'),
        ('{"a": 1, "b": 2}', ("b",), '{"a": 1}'),
        ('{"a": 1}', ("a",), "{}"),
        ('{\n  "a": 1,\n  "b": [1, {"a": 2}],\n  "c": 3\n}\n', ("b",), '{\n  "a": 1,\n  "c": 3\n}\n'),
        ('{\n  "a": 1,\n  "c": 3\n}\n', ("c",), '{\n  "a": 1\n}\n'),
        ('\ufeff{"m": {"x": "}", "y": 1}, "n": 2}', ("m", "x"), '\ufeff{"m": {"y": 1}, "n": 2}'),
        ('{"a": 1}', ("b",), '{"a": 1}'),
        ('{"a": 1}', ("a", "b"), '{"a": 1}'),
        ('{"a": 1, "b": 0, "a": 2}', ("a",), '{"b": 0}'),
    ],
)
def test_values_are_removed_without_other_changes(text, path, expected):
    assert remove_value(text, path) == expected
