"""What the page asks of a model: nothing that the model doesn't use, and everything it does."""

import pytest

from reeltune import load_catalog
from reeltune.engine.request import complete_settings
from reeltune.families import ARCHITECTURES
from reeltune.families.vocabulary import KEYS
from reeltune.settings import unused
from reeltune.web.fields import collect, defaults, fields_of, inputs_of

DERIVED = ("image_prompt_type", "video_prompt_type")  # letters, which follow from the inputs given


def definitions():
    catalog = load_catalog("/nonexistent")
    found = [catalog[id] for id in catalog]
    assert {row.architecture.id for row in found} == set(ARCHITECTURES)
    return found


@pytest.mark.parametrize("definition", definitions(), ids=lambda row: row.id)
def test_every_setting_on_the_page_is_used_by_the_model_and_none_is_missing(definition):
    architecture = definition.architecture
    fields, inputs = fields_of(definition), inputs_of(architecture)
    shown = {row.key for row in (*fields, *inputs)}
    assert shown <= architecture.settings
    hidden = architecture.settings - shown - set(DERIVED) - {"perturbation_switch"}  # another name of slg_switch
    second = {"guidance_phases", "guidance2_scale", "switch_threshold"}
    one_solver = {"sample_solver"} if len(architecture.family.solvers) == 1 else set()
    assert hidden <= one_solver | (set() if "transformer_2" in definition.slots else second)
    assert {row.key for row in inputs} == {row.key for row in architecture.inputs}
    for field in fields:  # whatever is put there, the model does something with it
        value = {
            "size": "64x64",
            "seed": "3",
            "slider": 5,
            "whole": 2,
            "numbers": [9],
            "number": 2.5,
            "choice": field.choices[-1][1] if field.choices else None,
        }
        one = {field.key: value.get(field.kind, "12")}
        assert unused(one, architecture) == []
    settings, notices = complete_settings(
        definition, collect(definition, {row.key: defaults(definition).get(row.key) for row in fields})
    )
    assert [row for row in notices if "does not use" in row and any(key in row for key in shown)] == []
    assert set(settings) <= set(KEYS)


@pytest.mark.parametrize("definition", definitions(), ids=lambda row: row.id)
def test_fields_can_hold_what_the_model_starts_from(definition):
    own = defaults(definition)
    for field in fields_of(definition):
        if field.kind == "slider":
            assert field.least <= own[field.key] <= field.most
            assert (own[field.key] - field.least) % field.step == 0
        if field.kind == "size":
            assert own[field.key] == field.choices[0][0]
        assert field.label
        assert field.help
        others = [
            row.family.label for row in ARCHITECTURES.values() if row.family is not definition.architecture.family
        ]
        assert not any(label in field.help for label in others)


def test_letters_follow_from_the_inputs_given():
    catalog = load_catalog("/nonexistent")
    wan = catalog["vace_14B"]
    assert collect(wan, {"prompt": "", "seed": None, "video_guide": "a.mp4", "image_refs": ["b.png"]}) == {
        "prompt": "", "video_guide": "a.mp4", "image_refs": ["b.png"], "video_prompt_type": "VI"
    }  # fmt: skip
    assert collect(catalog["ti2v_2_2"], {"image_start": None})["image_prompt_type"] == ""
    assert collect(catalog["ti2v_2_2"], {"image_start": "a.png"})["image_prompt_type"] == "S"


def test_nothing_in_the_page_names_a_model():
    from pathlib import Path

    import reeltune.web

    folder = Path(reeltune.web.__file__).parent
    names = {*ARCHITECTURES, *(row.family.label.lower() for row in ARCHITECTURES.values()), "vace", "hunyuan", "ltx"}
    for path in [*folder.glob("*.py"), *folder.glob("assets/*")]:
        text = path.read_text(encoding="utf-8").lower()
        for name in names - {"wan"}:
            assert name.lower() not in text, (path, name)
        assert '"wan' not in text
