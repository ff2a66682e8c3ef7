"""Definitions pasted together from the guide's pieces."""

import json

import pytest

from reeltune import load_catalog
from reeltune.definitions.repair import repair_text
from reeltune.definitions.schema import parse_definition
from reeltune.errors import DefinitionError

MODEL = """"model":
    {
        "name": "Wan {text}, \\"quoted\\"",
        "architecture": "t2v",
        "URLs": [
            "https://h/a_bf16.safetensors",
            "https://h/b_quanto_bf16_int8.safetensors"
        ]
    }"""
SETTINGS = '"prompt": "a } b, ]",\n    "seed": 7'
WANTED = json.loads(f"{{{MODEL}}}")["model"]

SHAPES = {
    "alone": MODEL,
    "alone, comma": MODEL + ",",
    "before the settings": f"{MODEL},\n{{\n    {SETTINGS}\n}}",
    "before the settings without a comma": f"{MODEL}\n{{\n    {SETTINGS}\n}}",
    "after the settings": f"{{\n    {SETTINGS}\n}}\n{MODEL},\n",
    "after the settings, comma": f"{{\n    {SETTINGS}\n}},\n{MODEL}",
    "both without braces": f"{MODEL},\n{SETTINGS}",
    "settings first, without braces": f"{SETTINGS},\n{MODEL},",
    "opening brace missing": f"{MODEL},\n{SETTINGS}\n}}",
    "closing brace missing": f"{{\n{MODEL},\n{SETTINGS}\n",
    "two objects": f"{{{MODEL}}}\n{{{SETTINGS}}}",
    "comma at the end": f"{{{SETTINGS},\n{MODEL},\n}}",
    "comma in the list": f"{{{SETTINGS},\n{MODEL.replace('safetensors' + chr(34) + chr(10), 'safetensors' + chr(34) + ',' + chr(10))}}}",
    "in a code fence": f"```json\n{{{MODEL}, {SETTINGS}}}\n```\n",
    "with a byte order mark": "\ufeff" + MODEL + ",",
    "windows line ends": f"{MODEL},\n{{{SETTINGS}}}".replace("\n", "\r\n"),
}  # fmt: skip


@pytest.mark.parametrize("text", SHAPES.values(), ids=SHAPES)
def test_pieces_become_one_object(text):
    found = repair_text(text)
    value = json.loads(found.text)
    assert value["model"] == WANTED
    if "seed" in text:
        assert (value["prompt"], value["seed"]) == ("a } b, ]", 7)
    assert found.faults


@pytest.mark.parametrize("text", SHAPES.values(), ids=SHAPES)
def test_the_error_shows_what_to_write(tmp_path, text):
    with pytest.raises(DefinitionError, match=r'one JSON object: .*Write {"model": {"name": ….*check --fix'):
        parse_definition(tmp_path / "x.json", text)


def test_the_inside_of_the_model_object_alone(tmp_path):
    text = json.dumps(WANTED | {"seed": 7})
    with pytest.raises(DefinitionError, match=r'must be in a `model` object.*Write {"model": {"name"'):
        parse_definition(tmp_path / "x.json", text)
    assert json.loads(repair_text(text).text) == {"model": WANTED, "seed": 7}


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", '"model"', '"model":', "{}", '{"prompt": "x"}', f"{{{MODEL}}}", MODEL[:-40], f"{MODEL} hello",
        f"{MODEL},{MODEL}", '"model": 5', "{'model': {}}", '{"seed": 1}, {"seed": 2}', '"model": {"a": "\x00',
        '{"model": {"URLs": ["https://h/x", "https://',
    ],
)  # fmt: skip
def test_what_is_no_definition_or_was_cut_off_is_left_alone(text):
    assert repair_text(text) is None


def test_a_pasted_file_is_set_aside_and_named(root):
    (root / "finetunes" / "pasted.json").write_text(SHAPES["alone, comma"], encoding="utf-8")
    catalog = load_catalog(root)
    (error,) = catalog.broken.values()
    assert "its outer { } are missing" in str(error)
