"""`configs`: named variants of a definition, and the setting that selects one."""

import json

import pytest

from reeltune import load_catalog
from reeltune.definitions.checking import check_files
from reeltune.definitions.writer import replace_urls
from reeltune.errors import DefinitionError, NotRunnable, SettingsError
from reeltune.library.index import Index
from reeltune.library.uses import FileUsers
from reeltune.media.origin import Origin
from reeltune.planning.plan import explain
from reeltune.request.parse import parse, preview
from reeltune.service.fields import fields_of, initial_settings
from reeltune.service.settings_schema import settings_schema

LARGE, SMALL = "https://h/large_bf16.safetensors", "https://h/small_bf16.safetensors"
CONFIGS = {
    "_name": "Size",
    "_default_label": "Large",
    "small": {"name": "Small and fast", "URLs": [SMALL], "fps": 8},
    "other": {"URLs": "t2v"},
}
MODEL = {"architecture": "t2v_1.3B", "URLs": [LARGE], "configs": CONFIGS}


@pytest.fixture
def mine(root, define):
    define("mine", MODEL, num_inference_steps=7)
    return load_catalog(root)["mine"]


def urls(definition):
    return [version.url for version in definition.slots["transformer"]]


def test_a_setting_selects_a_variant(mine, root):
    assert [(choice.id, choice.label) for choice in mine.variants.choices] == [
        ("small", "Small and fast"), ("other", "other"),
    ]  # fmt: skip
    for value in ("small", ",,,small", " small "):
        small = preview(mine, {"config": value}).definition
        assert (small.id, small.config, urls(small), small.architecture.frame_rate) == ("mine", "small", [SMALL], 8)
        assert small.settings == mine.settings
    assert urls(preview(mine, {"config": "other"}).definition) == urls(load_catalog(root)["t2v"])
    for value in ("", ",,,"):
        parsed = preview(mine, {"config": value})
        assert parsed.definition is mine
        assert parsed.requests[0].config == ""
    assert mine.variant("small") is mine.variant("small")
    assert mine.variant("small").variant("") is mine
    assert mine.variant("small").variant("other").config == "other"


def test_the_files_of_a_variant_are_planned_and_kept(mine, root):
    plan = explain(preview(mine, {"config": "small"}).definition)
    assert plan.transformer.version.url == SMALL
    assert explain(mine).transformer.version.url == LARGE
    users = FileUsers(load_catalog(root), Index(root / "ckpts"))
    assert users.of_file(root / "ckpts" / "small_bf16.safetensors") == {"mine"}


def test_an_unknown_variant_is_the_default_one(mine):
    parsed = preview(mine, {"config": "gone"})
    assert parsed.definition is mine
    assert "There is no variant 'gone': 'Large' is used. Others are small, other." in parsed.notices


def test_without_variants_the_setting_is_not_used(root, define):
    define("mine", {"architecture": "t2v", "URLs": [LARGE]})
    parsed = preview(load_catalog(root)["mine"], {"config": "small"})
    assert parsed.notices == ("t2v does not use: config=small.",)


def test_saved_and_own_settings_select_too(root, define):
    define("mine", MODEL, config=",,,small")
    mine = load_catalog(root)["mine"]
    assert preview(mine, {}).definition.config == "small"
    (root / "settings").mkdir()
    (root / "settings" / "mine_settings.json").write_text('{"config": "other"}')
    assert preview(mine, {}).definition.config == "other"
    assert preview(mine, {"config": ""}).definition is mine


def test_the_choice_is_stored_as_other_programs_read_it(mine):
    request = parse(mine, {"prompt": "a cat", "config": "small"}).requests[0]
    stored = Origin("mine", "t2v_1.3B", "reeltune", request.settings, {}).as_metadata()["settings"]
    assert stored["config"] == ",,,small"
    assert preview(mine, stored).definition.config == "small"


def test_the_form_and_the_schema_offer_them(mine):
    (field,) = [field for field in fields_of(mine) if field.key == "config"]
    assert (field.kind, field.label) == ("choice", "Size")
    assert field.choices == (("Large", ""), ("Small and fast", "small"), ("other", "other"))
    assert initial_settings(mine, {"config": ",,,small"})["config"] == "small"
    schema = settings_schema(mine)["properties"]["config"]
    assert schema["enum"] == ["", "small", "other"]


def test_variants_of_another_definition(root, define):
    define("first", MODEL)
    for id, reference in (("second", "first"), ("third", "second"), ("fourth", "first#configs")):
        define(id, {"architecture": "t2v", "URLs": [LARGE], "configs": reference})
    for id in ("second", "third", "fourth"):
        definition = load_catalog(root)[id]
        assert definition.notices == ()
        assert urls(definition.variant("small")) == [SMALL]
        assert definition.variant("small").architecture.id == "t2v"


@pytest.mark.parametrize(
    ("configs", "where", "message"),
    [("gone", "model.configs", "There is no definition 'gone'"), ("mine", "model.configs", "circular"),
     ([1], "model.configs", "Invalid value"), (3, "model.configs", "Invalid value"),
     ({"a,b": {}}, "model.configs.a,b", "Invalid id"), ({"": {}}, "model.configs.", "Invalid id"),
     ({"a": "x"}, "model.configs.a", "Invalid value 'x'"), ({"a": {"URLs": 3}}, "model.configs.a.URLs", "left out"),
     ({"a": {"fps": "fast", "URLs": [SMALL]}}, "model.configs.a.fps", "Invalid value 'fast'"),
     ({"a": {"URLS": [SMALL]}}, "model.configs.a.URLS", "Unknown key"),
     ({"a": {"configs": {}, "URLs": [SMALL]}}, "model.configs.a", "can't replace configs"),
     ({"_name": 5, "a": {}}, "model.configs._name", "Invalid value 5"),
     ({str(number): {} for number in range(101)}, "model.configs", "Invalid value")],
)  # fmt: skip
def test_odd_values_are_reported_once_and_the_rest_is_used(root, define, configs, where, message):
    define("mine", {"architecture": "t2v", "URLs": [LARGE], "configs": configs})
    catalog = load_catalog(root)
    assert catalog.broken == {}
    definition = catalog["mine"]
    assert urls(definition) == [LARGE]
    (problem,) = definition.notices
    assert (problem.where, problem.severity) == (where, "warning")
    assert message in problem.message
    if definition.variants is not None and "URLs" in str(configs):
        assert urls(definition.variant("a")) in ([SMALL], [LARGE])


def test_a_variant_that_cannot_be_resolved(root, define):
    define("mine", MODEL | {"configs": {"broken": {"URLs": "gone"}, "small": {"URLs": [SMALL]}}})
    catalog = load_catalog(root)
    assert urls(catalog["mine"].variant("small")) == [SMALL]
    with pytest.raises(DefinitionError, match="'gone'"):
        preview(catalog["mine"], {"config": "broken"})
    problems, _ = check_files(catalog, [root / "finetunes" / "mine.json"])
    assert ["gone" in problem.message for problem in problems if problem.severity == "error"] == [True]


def test_a_variant_that_cannot_run(root, define):
    define("mine", MODEL | {"configs": {"vace": {"modules": ["vace_14B"]}}})
    catalog = load_catalog(root)
    assert catalog["mine"].runnable
    assert not catalog["mine"].variant("vace").runnable
    with pytest.raises(NotRunnable, match="merges modules"):
        parse(catalog["mine"], {"config": "vace"})
    problems, _ = check_files(catalog, [root / "finetunes" / "mine.json"])
    assert any(problem.where == "model.configs.vace" and "can't run" in problem.message for problem in problems)


def test_the_setting_is_text(mine):
    with pytest.raises(SettingsError, match="config"):
        preview(mine, {"config": 3})


def test_edits_keep_them(define):
    path = define("mine", MODEL)
    before = path.read_text()
    counts = replace_urls(path, lambda url: url.replace("https://h/", "https://other/"))
    assert counts == {"URLs": 1, "configs.small.URLs": 1}
    after = path.read_text()
    assert after == before.replace("https://h/", "https://other/")
    assert json.loads(after)["model"]["configs"]["other"] == {"URLs": "t2v"}
