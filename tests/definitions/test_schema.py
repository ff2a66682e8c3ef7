import json
from pathlib import Path

import jsonschema
import pytest

from conftest import DATA
from reeltune.definitions.schema import json_schema, read_definition
from reeltune.errors import DefinitionInvalid, DefinitionSyntaxError

MODEL = {"name": "n", "architecture": "t2v", "URLs": ["https://h/x_bf16.safetensors"]}


def write(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "def.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def test_a_byte_order_mark_is_tolerated(tmp_path):
    assert read_definition(write(tmp_path, b"\xef\xbb\xbf" + json.dumps({"model": MODEL}).encode())).id == "def"


@pytest.mark.parametrize(
    ("content", "where", "words"),
    [
        ({}, "model", "needs a `model`"),
        ({"model": []}, "model", "needs a `model`"),
        ({"model": MODEL | {"URLs": 5}}, "model.URLs", "list of URLs"),
        ({"model": MODEL | {"URLs": ["a", 5]}}, "model.URLs[1]", "5"),
        ({"model": MODEL | {"URLs": [""]}}, "model.URLs[0]", "''"),
        ({"model": MODEL | {"URLs": ["https://[bad"]}}, "model.URLs[0]", "a valid URL"),
        ({"model": MODEL | {"URLs": ["file:///etc/passwd"]}}, "model.URLs[0]", "an http(s) URL"),
        ({"model": MODEL | {"URLs": ["https:///x"]}}, "model.URLs[0]", "an http(s) URL"),
        ({"model": MODEL | {"modules": [["a\x00b"]]}}, "model.modules[0][0]", "control characters"),
        ({"model": MODEL | {"components": "a\nb"}}, "model.components", "control characters"),
    ],
)
def test_every_error_names_file_place_value_and_fix(tmp_path, content, where, words):
    path = write(tmp_path, content)
    with pytest.raises(DefinitionInvalid) as caught:
        read_definition(path)
    assert [problem.where for problem in caught.value.problems] == [where]
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("num_inference_steps", "many", "number"),
        ("num_inference_steps", 0, "from 1"),
        ("num_inference_steps", 10**310, "from 1"),
        ("resolution", "big", "WIDTHxHEIGHT"),
        ("guidance_scale", True, "number"),
        ("multi_prompts_gen_type", "Q", "one of G, PG"),
        ("tea_cache_setting", "fast", "number"),
        ("slg_layers", {"a": 1}, "list of block numbers"),
    ],
)
def test_an_odd_setting_is_named_and_left_out_and_the_rest_counts(tmp_path, key, value, words):
    file = read_definition(write(tmp_path, {"model": MODEL, key: value, "seed": 5}))
    assert dict(file.settings) == {"seed": 5}
    (notice,) = file.notices
    assert (notice.where, notice.severity) == (key, "warning")
    assert words in str(notice)


def test_many_unknown_settings_are_one_notice_and_neutral_ones_none(tmp_path):
    neutral = dict.fromkeys(("a", "b", "c"), "") | {"d": 0, "e": None, "f": [], "g": False, "h": {}}
    assert read_definition(write(tmp_path, {"model": MODEL, **neutral})).notices == ()
    (notice,) = read_definition(write(tmp_path, {"model": MODEL, **{f"zz{n}": n + 1 for n in range(170)}})).notices
    assert "162 more" in str(notice)
    assert len(str(notice)) < 1000


def test_all_problems_are_reported_at_once(tmp_path):
    with pytest.raises(DefinitionInvalid) as caught:
        read_definition(write(tmp_path, {"model": MODEL | {"name": 1, "URLs": 2}}))
    assert len(caught.value.problems) == 2


def test_unknown_keys_are_kept_and_named_with_the_nearest(tmp_path):
    file = read_definition(write(tmp_path, {"model": MODEL | {"URLS2": []}, "guidance_scal": 3}))
    assert file.model.model_extra == {"URLS2": []}
    text = " ".join(str(notice) for notice in file.notices)
    assert "'URLs2'" in text
    assert "'guidance_scale'" in text


def test_not_utf8_and_too_large(tmp_path):
    for content in (b'{"model": "\xff"}', b" " * 5_000_000):
        with pytest.raises(DefinitionSyntaxError):
            read_definition(write(tmp_path, content))


def test_exported_schema_is_current_and_accepts_real_definitions():
    stored = json.loads((Path(__file__).parents[2] / "docs" / "finetune.schema.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(json_schema())), "run: python docs/generate.py"
    for entry in json.loads((DATA / "definitions.json").read_text(encoding="utf-8")).values():
        settings = entry.pop("settings", {})
        jsonschema.validate({"model": entry, **settings}, stored)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"model": {"URLs": 5}}, stored)
