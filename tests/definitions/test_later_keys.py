"""`resolutions`, `visible`, `fps`, `preload_in_VRAM`, and modules by `id#key`: read, bounded, reported once, used."""

import pytest
from typer.testing import CliRunner

from reeltune import load_catalog
from reeltune.cli.app import app
from reeltune.definitions.jsontext import replace_value
from reeltune.definitions.schema import json_schema
from reeltune.definitions.writer import edit
from reeltune.request.parse import preview
from reeltune.service.fields import fields_of
from reeltune.service.settings_schema import settings_schema

URLS = ["https://h/x_bf16.safetensors"]
MODEL = {"architecture": "t2v_1.3B", "URLs": URLS}


def one(root, define, **keys):
    define("mine", MODEL | keys)
    catalog = load_catalog(root)
    assert catalog.broken == {}
    return catalog["mine"]


# --- resolutions ----------------------------------------------------------------------------------------------------


def test_resolutions_are_what_the_form_and_the_schema_offer(root, define):
    offered = [["832x480 (16:9)", "832x480"], "480x832", ["Square", "624x624"]]
    define("mine", MODEL | {"resolutions": offered}, resolution="640x352")
    definition = load_catalog(root)["mine"]
    (field,) = [field for field in fields_of(definition) if field.key == "resolution"]
    assert field.choices == (
        ("640x352", "640x352"), ("832x480 (16:9)", "832x480"), ("480x832", "480x832"), ("Square", "624x624"),
    )  # fmt: skip
    schema = settings_schema(definition)["properties"]["resolution"]
    assert schema["examples"] == ["640x352", "832x480", "480x832", "624x624"]
    assert preview(definition, {"resolution": "320x320"}).requests[0].width == 320  # others are accepted


def test_odd_resolutions_are_left_out(root, define):
    definition = one(root, define, resolutions=["832x480", "big", ["a"], ["x", "y"], 7, None, ["Tall", "480x832"]])
    assert [value for _, value in definition.resolutions] == ["832x480", "480x832"]
    assert [problem.where for problem in definition.notices] == ["model.resolutions"]
    assert one(root, define, resolutions="832x480").resolutions == ()


# --- visible --------------------------------------------------------------------------------------------------------


def test_hidden_definitions_are_listed_on_demand_and_usable(root, define):
    definition = one(root, define, visible=False)
    assert preview(definition, {}).requests
    run = CliRunner().invoke
    listed = run(app, ["list", "--root", str(root)])
    assert "mine" not in listed.stdout
    assert "--all" in listed.output
    assert "mine" in run(app, ["list", "--all", "--root", str(root)]).stdout
    assert run(app, ["show", "mine", "--root", str(root)]).exit_code == 0


# --- fps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fps", "rate", "warned"),
    [(24, 24, False), (24.0, 24, False), (None, 16, False), (0, 16, True), (241, 16, True), ("24", 16, True),
     (23.5, 16, True), (True, 16, True), (1e300, 16, True)],
)  # fmt: skip
def test_fps(root, define, fps, rate, warned):
    definition = one(root, define, fps=fps)
    assert definition.architecture.frame_rate == rate
    assert preview(definition, {}).requests[0].fps == rate
    assert [problem.where for problem in definition.notices] == (["model.fps"] if warned else [])


def test_fps_of_a_base_model_is_inherited_and_settings_win(root, define):
    define("t2v_1.3B", {"fps": 12})
    definition = one(root, define)
    assert load_catalog(root)["t2v_1.3B"].architecture.frame_rate == 12
    define("derived", {"architecture": "i2v_720p", "URLs": URLS})
    define("i2v_720p", {"fps": 20})
    assert load_catalog(root)["derived"].architecture.frame_rate == 20
    assert preview(definition, {"force_fps": 30}).requests[0].fps == 30


# --- preload_in_VRAM ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "megabytes", "warned"),
    [(2000, 2000, False), (1.0, 1, False), (0, 0, False), (-1, 0, True), (10**7, 0, True), ("2 GB", 0, True),
     (True, 0, True)],
)  # fmt: skip
def test_preload_in_vram(root, define, value, megabytes, warned):
    definition = one(root, define, preload_in_VRAM=value)
    assert definition.preload_bytes == megabytes * 10**6
    assert [problem.where for problem in definition.notices] == (["model.preload_in_VRAM"] if warned else [])


# --- modules --------------------------------------------------------------------------------------------------------

FIRST, SECOND = "https://h/a_module_bf16.safetensors", "https://h/b_module_bf16.safetensors"


@pytest.mark.parametrize(
    ("modules", "expected"),
    [(["vace_1.3B#modules"], 1), ("vace_1.3B#modules", 1), (["store#URLs"], [[FIRST, SECOND]]),
     ("store#URLs2", [[SECOND]]), (["store#preload_URLs", [FIRST]], [[SECOND], [FIRST]]),
     (["store#name"], None), (["gone#URLs"], None), (["store#modules"], None)],
)  # fmt: skip
def test_modules_by_key(root, define, modules, expected):
    store = {"architecture": "t2v_2_2", "URLs": [FIRST, SECOND], "URLs2": [SECOND], "preload_URLs": [SECOND]}
    define("store", store)
    define("mine", {"architecture": "vace_1.3B", "URLs": URLS, "modules": modules})
    catalog = load_catalog(root)
    assert catalog.broken == {}
    summary = next(summary for summary in catalog.summaries() if summary.id == "mine")
    if expected is None:
        assert not summary.runnable
        assert any(problem.where == "model.modules" for problem in catalog.problems())
        return
    slots = catalog["mine"].slots
    found = [[version.url for version in versions] for slot, versions in slots.items() if slot.is_module]
    if expected == 1:
        assert slots["modules[0]"] == catalog["vace_1.3B"].slots["modules[0]"]
    else:
        assert found == expected


# --- all ------------------------------------------------------------------------------------------------------------


def test_they_are_in_the_schema_and_kept_by_edits(define):
    keys = {"fps": 24, "configs": {"a": {"fps": 12}}, "visible": False, "preload_in_VRAM": 1000, "image_outputs": True,
            "resolutions": ["832x480"], "LTXV_config": "x.yaml", "modules": ["vace_1.3B#modules"]}  # fmt: skip
    described = json_schema()["$defs"]["ModelSection"]["properties"]
    assert keys.keys() <= described.keys()
    assert all(described[key]["description"] for key in keys)
    path = define("mine", MODEL | keys)
    before = path.read_text()
    edit(path, ("model", "name"), "New")
    assert path.read_text() == replace_value(before, ("model", "name"), "New")
    assert all(f'"{key}"' in path.read_text() for key in keys)


def test_one_odd_value_of_each_is_reported_and_the_file_is_used(root, define):
    odd = {"fps": [], "configs": 5, "visible": "no", "preload_in_VRAM": {}, "image_outputs": 1, "resolutions": {},
           "LTXV_config": 9}  # fmt: skip
    definition = one(root, define, **odd)
    assert sorted(problem.where for problem in definition.notices) == sorted(f"model.{key}" for key in odd)
    assert definition.visible
    assert definition.runnable
