"""What the page asks of a model: nothing that the model doesn't use, and everything it does."""

import re

import numpy as np
import pytest
from PIL import Image

from reeltune import load_catalog
from reeltune.errors import MediaError, SettingsError
from reeltune.families import ARCHITECTURES
from reeltune.families.vocabulary import KEYS
from reeltune.request.parse import complete_settings, parse
from reeltune.service.fields import fields_of, initial_settings, inputs_of, settings_from_form
from reeltune.service.settings_files import checked_inputs
from reeltune.service.settings_schema import settings_schema
from reeltune.settings import unused
from reeltune.web.words import in_words

PHASES = ("guidance2_scale", "guidance3_scale", "switch_threshold", "switch_threshold2")
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
    hidden = architecture.settings - shown - set(DERIVED)
    second = {"guidance_phases", "model_switch_phase", *PHASES}
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
        definition,
        settings_from_form(definition, {row.key: initial_settings(definition).get(row.key) for row in fields}),
    )
    assert [row for row in notices if "does not use" in row and any(key in row for key in shown)] == []
    assert set(settings) <= set(KEYS)


@pytest.mark.parametrize("definition", definitions(), ids=lambda row: row.id)
def test_fields_can_hold_what_the_model_starts_from(definition):
    own = initial_settings(definition)
    for field in fields_of(definition):
        if field.kind == "slider":
            assert field.minimum <= own[field.key] <= field.maximum
            assert (own[field.key] - field.minimum) % field.step == 0
        if field.kind in ("number", "whole"):
            assert isinstance(own[field.key], int | float)  # an empty field for a number may be sent as 0
        if field.kind == "size":
            assert own[field.key] == field.choices[0][0]
        assert field.label
        others = [
            row.family.label for row in ARCHITECTURES.values() if row.family is not definition.architecture.family
        ]
        assert not any(label in field.help for label in others)


@pytest.mark.parametrize("definition", definitions(), ids=lambda row: row.id)
def test_help_adds_to_the_label_and_names_no_value_the_field_cannot_hold(definition):
    for field in (*fields_of(definition), *inputs_of(definition.architecture)):
        label, help = (set(re.findall(r"[a-z]+", words.lower())) for words in (field.label, field.help))
        assert not help or help - label, f"{field.key}: {field.help!r} repeats {field.label!r}"
        assert field.key not in field.help
        if field.kind == "choice":
            shown = {str(words) for words, _ in field.choices}
            named = re.findall(r"-?\b\d+\b", field.help)
            assert set(named) <= shown, f"{field.key}: {field.help!r}"


def test_the_page_names_settings_by_their_labels_and_no_option_of_the_command_line():
    assert in_words("i2v needs image_start: an image. Use --image-start FILE, or the setting image_start=….") == (
        "i2v needs “Start image”: an image. Add a file to “Start image”."
    )
    assert in_words("Make it smaller, or take an int8 version (`--quantization int8`).") == (
        "Make it smaller, or take an int8 version."
    )
    assert in_words("Check the folder, or name another with --root.") == "Check the folder."
    assert in_words("Choose another with --device.") == "Change “Device” under Configuration."
    assert in_words("`reeltune decode x.safetensors` tries again.") == "“Resume” tries again."
    assert in_words("transformer_2 makes room for modules[0].") == "second model makes room for module 1."
    assert in_words("A size of 64x64, as it is.") == "A size of 64x64, as it is."


def test_no_hint_or_notice_of_the_package_brings_the_command_line_to_the_page():
    """Every text in the package's source that names an option or a command, as the page would show it."""
    import ast
    from pathlib import Path

    import reeltune

    folder, seen = Path(reeltune.__file__).parent, 0
    for path in sorted(folder.rglob("*.py")):
        if path.relative_to(folder).parts[0] in ("cli", "web"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or "Error" not in ast.unparse(node.func):
                continue
            for value in (*node.args, *(row.value for row in node.keywords)):
                text = "".join(
                    part.value if isinstance(part, ast.Constant) else "x"
                    for part in (value.values if isinstance(value, ast.JoinedStr) else [value])
                    if not isinstance(part, ast.Constant) or isinstance(part.value, str)
                )
                seen += bool(re.search(r"--[a-z]|reeltune [a-z]+", text))
                assert not re.search(r"--[a-z]|`reeltune [a-z]", in_words(text)), f"{path}: {text!r}"
    assert seen > 5


START = ("Start image", "image", True)
FORMS = {
    "lucy_edit": [("Video to edit", "video", True)],
    "sky_df_1.3B": [("Start image", "image", False)], "sky_df_14B": [("Start image", "image", False)],
    "animate": [
        ("Pose video", "video", True), ("Face video", "video", True), ("Character", "image", True),
        ("Mask video", "video", False), ("Background video", "video", False),
    ],
    "chrono_edit": [("Image to edit", "image", True)],
    "hunyuan_1_5_t2v": [], "hunyuan_1_5_i2v": [START], "k5_lite_t2v": [], "k5_lite_i2v": [START], "k5_pro_t2v": [],
    "k5_pro_i2v": [START],
}  # fmt: skip
MODES = {"sky_df_1.3B": "Noise levels", "sky_df_14B": "Noise levels", "chrono_edit": "Temporal reasoning"}
WINDOWS = {"sliding_window_size": "Window (frames)", "sliding_window_overlap": "Shared frames"}


@pytest.mark.parametrize("id", FORMS)
def test_forms_of_relatives_and_new_families(id):
    definition = next(row for row in definitions() if row.architecture.id == id)
    inputs, fields = inputs_of(definition.architecture), {row.key: row for row in fields_of(definition)}
    assert [(row.label, row.kind, row.required) for row in inputs] == FORMS[id]
    if id == "animate":
        for row in inputs:
            assert ("must be prepared already" in row.help) == (row.kind == "video")
            assert ("Only to replace a person" in row.help) == (not row.required)
    mode = fields.get("model_mode")
    assert (mode.label if mode else None) == MODES.get(id)
    if mode:
        assert dict(mode.choices) in ({"Synchronous": 0, "Asynchronous": 5}, {"Off": 0, "On": 1})
    has_windows = definition.architecture.windows is not None
    assert {key: fields[key].label for key in WINDOWS if key in fields} == (WINDOWS if has_windows else {})
    assert ("video_length" in fields) == (id != "chrono_edit")
    assert ("sample_solver" in fields) == (definition.architecture.family.name == "wan")


def test_problems_name_the_labels_of_the_form(root, define):
    """An input has another label in the form of a model that uses it for something else."""
    for id, form in FORMS.items():
        definition = next(row for row in definitions() if row.architecture.id == id)
        labels = {row.key: row.label for row in inputs_of(definition.architecture)}
        if not any(required for _, _, required in form):
            continue
        with pytest.raises(SettingsError) as caught:
            parse(definition, {})
        first = next(label for label, _, required in form if required)
        assert in_words(caught.value.message, labels).partition(" needs ")[2] in (
            f"“{first}”: a video.",
            f"“{first}”: an image.",
        )
        assert in_words(caught.value.hint, labels) == f"Add a file to “{first}”."


def test_letters_follow_from_the_inputs_given():
    catalog = load_catalog("/nonexistent")
    wan = catalog["vace_14B"]
    assert settings_from_form(wan, {"prompt": "", "seed": None, "video_guide": "a.mp4", "image_refs": ["b.png"]}) == {
        "prompt": "", "video_guide": "a.mp4", "image_refs": ["b.png"], "video_prompt_type": "VI"
    }  # fmt: skip
    assert settings_from_form(catalog["ti2v_2_2"], {"image_start": None})["image_prompt_type"] == ""
    assert settings_from_form(catalog["ti2v_2_2"], {"image_start": "a.png"})["image_prompt_type"] == "S"


def test_the_inputs_of_wans_conditioned_relatives():
    catalog = load_catalog("/nonexistent")
    shown = {
        id: [(row.key, row.kind, row.label, row.required) for row in inputs_of(catalog[id].architecture)]
        for id in ("phantom_14B", "wanmove", "i2v_2_2_svi2pro", "vace_ditto_14B")
    }
    assert shown == {
        "phantom_14B": [("image_refs", "images", "People and objects", True)],
        "wanmove": [("image_start", "image", "Start image", True), ("custom_guide", "tracks", "Trajectories", True)],
        "i2v_2_2_svi2pro": [("image_start", "image", "Start image", True)],
        "vace_ditto_14B": [("video_guide", "video", "Video to edit", True)],
    }
    clip = settings_from_form(catalog["ltx2_22B_msr"], {"image_refs": ["place.png", "a.png"]})
    assert clip["video_prompt_type"] == "KI"
    tracks = inputs_of(catalog["wanmove"].architecture)[1]
    assert "[frames, points, 2]" in tracks.help
    assert settings_from_form(catalog["wanmove"], {"custom_guide": "a.npy"})["video_prompt_type"] == ""
    assert "image_refs" in settings_schema(catalog["phantom_14B"])["required"]
    assert settings_schema(catalog["wanmove"])["properties"]["custom_guide"]["title"] == "Trajectories"
    modes = next(field for field in fields_of(catalog["vace_ditto_14B"]) if field.key == "model_mode")
    assert (modes.label, modes.choices) == (
        "Kind of edit", (("Global", 0), ("Global style", 1), ("Rendered to real", 2)),
    )  # fmt: skip


def test_a_draft_takes_trajectories_and_no_other_file_in_their_place(workspace, root):
    definition = load_catalog(root)["wanmove"]
    np.save(root / "uploads" / "tracks.npy", np.zeros((3, 2, 2)))
    Image.new("RGB", (8, 8)).save(root / "uploads" / "start.png")
    good = {"image_start": "uploads/start.png", "custom_guide": "uploads/tracks.npy"}
    assert checked_inputs(workspace, definition, good) == good
    with pytest.raises(MediaError, match=r"start\.png is a PNG image, not a NumPy file of trajectories"):
        checked_inputs(workspace, definition, good | {"custom_guide": "uploads/start.png"})
    with pytest.raises(MediaError, match=r"tracks\.npy is a NumPy file, not an image"):
        checked_inputs(workspace, definition, good | {"image_start": "uploads/tracks.npy"})


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


def test_the_resolutions_a_definition_offers(root, define):
    offered = [["1024x1024 (1:1)", "1024x1024"], "768x1344"]
    define(
        "mine",
        {"architecture": "t2v", "URLs": ["https://h/x.safetensors"], "resolutions": offered},
        resolution="832x480",
    )
    field = next(row for row in fields_of(load_catalog(root)["mine"]) if row.key == "resolution")
    assert [value for _, value in field.choices] == ["832x480", "1024x1024", "768x1344"]


def test_help_names_what_the_architecture_does(root):
    catalog = load_catalog(root)
    fields = {field.key: field for field in fields_of(catalog["ltx2_19B"])}
    assert "usually 29" in fields["perturbation_layers"].help
    assert fields["perturbation_end_perc"].label == "Spatiotemporal guidance end (%)"
    modes = next(field for field in fields_of(catalog["vace_ditto_14B"]) if field.key == "model_mode")
    assert modes.help == "Each kind has a LoRA of its own."
