import json
import time

import pytest

from conftest import DATA
from reeltune import load_catalog
from reeltune.definitions.roots import prepare_root
from reeltune.errors import DefinitionNotFound, DefinitionReference
from reeltune.settings import layer, read_settings

WEIGHTS = ["https://h/x_bf16.safetensors"]


def test_every_known_definition_is_built_in_with_its_files_and_settings(root):
    catalog = load_catalog(root)
    assert not catalog.broken
    assert not catalog.problems()
    for id, facts in json.loads((DATA / "definitions.json").read_text(encoding="utf-8")).items():
        definition = catalog[id]
        assert definition.architecture.id == facts["architecture"]
        assert definition.name
        assert definition.description
        if isinstance(facts["URLs"], list):
            assert [version.url for version in definition.slots["transformer"]] == facts["URLs"]
        settings = layer(definition.architecture, definition.settings)
        expected = read_settings(facts.get("settings", {})).settings
        expected = {key: value for key, value in expected.items() if key not in definition.architecture.call_only}
        assert {key: settings[key] for key in expected} == dict(expected)
        assert definition.runnable or definition.reason


def test_references_and_modules_resolve(root):
    catalog = load_catalog(root)
    vace, base = catalog["vace_14B_2_2"], catalog["t2v_2_2"]
    assert vace.slots["transformer"] == base.slots["transformer"]
    assert vace.slots["transformer_2"] == base.slots["transformer_2"]
    assert vace.slots["modules[0]"] == catalog["vace_14B"].slots["modules[0]"]
    assert catalog["ltxv_distilled"].preload == catalog["ltxv_13B"].preload


def test_a_users_file_overrides_property_by_property(root, define):
    define("t2v", {"URLs": WEIGHTS}, num_inference_steps=4)
    definition = load_catalog(root)["t2v"]
    assert [version.url for version in definition.slots["transformer"]] == WEIGHTS
    assert definition.name == "Wan 2.1 Text to Video 14B"
    assert definition.kind == "base"
    assert definition.settings["num_inference_steps"] == 4
    assert len(definition.files) == 2


def test_architecture_may_name_a_base_model_and_inherits_its_settings(root, define):
    define("mine", {"architecture": "i2v_720p", "URLs": WEIGHTS}, seed=5)
    definition = load_catalog(root)["mine"]
    assert definition.architecture.id == "i2v"
    assert definition.settings == {"resolution": "1280x720", "seed": 5}
    assert definition.kind == "finetune"


def test_one_bad_file_is_set_aside(root, define):
    define("good", {"architecture": "t2v", "URLs": WEIGHTS})
    bad = root / "finetunes" / "bad.json"
    bad.write_text("{'a'", encoding="utf-8")
    catalog = load_catalog(root)
    assert "good" in catalog
    assert list(catalog.broken) == [bad]
    assert any("bad.json" in str(problem) for problem in catalog.problems())


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"architecture": "t2w", "URLs": WEIGHTS}, "'t2v'"),
        ({"architecture": "t2v", "URLs": "nope"}, "doesn't exist"),
        ({"architecture": "t2v", "URLs": "https://h/x.safetensors"}, "write it as a list"),
        ({"architecture": "t2v", "URLs": "mine"}, "circular: mine -> mine"),
        ({"architecture": "t2v", "URLs": WEIGHTS, "modules": ["t2v"]}, "0 modules"),
        ({"architecture": "t2v", "URLs": WEIGHTS, "modules": ["mine"]}, "circular"),
        ({"architecture": "other", "URLs": WEIGHTS}, "is a finetune.*Use its architecture: 't2v'"),
    ],
)
def test_bad_references_are_named(root, define, model, words):
    define("mine", model)
    define("other", {"architecture": "t2v", "URLs": WEIGHTS})
    with pytest.raises(DefinitionReference, match=words) as caught:
        load_catalog(root)["mine"]
    assert "mine.json" in str(caught.value)


def test_longer_circles(root, define):
    define("a", {"architecture": "t2v", "URLs": "b"})
    define("b", {"architecture": "t2v", "URLs": "c"})
    define("c", {"architecture": "t2v", "URLs": "a"})
    with pytest.raises(DefinitionReference, match="a -> b -> c -> a"):
        load_catalog(root)["a"]


def test_missing_architecture_or_weights_of_a_new_id(root, define):
    define("mine", {"name": "x"})
    problems = [str(problem) for problem in load_catalog(root).problems()]
    assert len(problems) == 2
    assert "`architecture` is missing" in problems[0]


def test_unknown_ids_get_the_nearest(root):
    with pytest.raises(DefinitionNotFound, match="nano_t2v"):
        load_catalog(root)["nano_t2"]


def test_asking_for_what_is_not_done_is_not_runnable(root, define):
    define("m", {"architecture": "t2v", "URLs": WEIGHTS, "modules": ["vace_14B"]})
    define("v", {"architecture": "t2v", "URLs": WEIGHTS, "VAE_URLs": ["https://h/v.pth"]})
    catalog = load_catalog(root)
    assert "modules" in catalog["m"].reason
    assert "no version of vae that can be loaded" in catalog["v"].reason
    reasons = {row.id: row.reason for row in catalog.summaries()}
    assert all(reasons[id] == catalog[id].reason for id in "mv")


def test_loras_and_three_phases_are_part_of_a_runnable_definition(root, define):
    loras = ["https://h/a.safetensors", "https://h/b.safetensors"]
    define("l", {"architecture": "t2v", "URLs": WEIGHTS, "loras": loras, "loras_multipliers": [0.5, "1;0;0"]})
    define("shared", {"architecture": "t2v", "URLs": WEIGHTS, "loras": "l", "loras_multipliers": "l"})
    define("p", {"architecture": "t2v", "URLs": WEIGHTS}, guidance_phases=3)
    catalog = load_catalog(root)
    assert all(catalog[id].runnable for id in ("l", "shared", "p"))
    assert [lora.url for lora in catalog["l"].loras] == loras
    assert catalog["l"].lora_multipliers == "0.5 1;0;0"
    assert (catalog["shared"].loras, catalog["shared"].lora_multipliers) == (catalog["l"].loras, "0.5 1;0;0")
    assert catalog["p"].settings["guidance_phases"] == 3
    assert catalog["p"].loras == ()


def test_thousands_load_fast_enough_to_list(root, define):
    for index in range(2000):
        define(f"d{index}", {"architecture": "t2v", "URLs": WEIGHTS, "name": "x"}, seed=1)
    start = time.process_time()
    assert len(load_catalog(root).summaries()) > 2000
    assert time.process_time() - start < 20  # a guard against quadratic work, not a benchmark


def test_keys_that_other_programs_act_on_are_done_or_reported(root, define):
    define("mine", {"architecture": "t2v", "URLs": WEIGHTS, "fps": 24, "visible": False, "sample_solver": "euler",
                    "resolutions": [["832x480 (16:9)", "832x480"], "64x64"], "LTXV_config": "", "group": "x"})  # fmt: skip
    definition = load_catalog(root)["mine"]
    assert definition.architecture.frame_rate == 24
    assert definition.architecture.id == "t2v"
    assert not definition.visible
    assert definition.resolutions == (("832x480 (16:9)", "832x480"), ("64x64", "64x64"))
    (notice,) = definition.notices
    assert "model.sample_solver: It is not used" in str(notice)


def test_an_override_that_names_itself_means_what_it_overrides(root, define):
    built_in = load_catalog(root)["vace_14B"]
    define("vace_14B", {"URLs": "vace_14B", "modules": ["vace_14B", ["https://h/m.safetensors"]]})
    definition = load_catalog(root)["vace_14B"]
    assert definition.slots["transformer"] == built_in.slots["transformer"]
    assert definition.slots["modules[0]"] == built_in.slots["modules[0]"]
    assert [version.url for version in definition.slots["modules[1]"]] == ["https://h/m.safetensors"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("t2v_2_2#URLs2", True),
        ("t2v_2_2#URLs", True),
        ("t2v_2_2#zzz", False),
        ("nowhere#URLs", False),
        ("#URLs", False),
    ],
)
def test_lists_of_other_keys(root, define, value, expected):
    define("mine", {"architecture": "t2v_2_2", "URLs": "t2v_2_2", "URLs2": value})
    catalog = load_catalog(root)
    if not expected:
        with pytest.raises(DefinitionReference):
            catalog["mine"]
        return
    slot = "transformer_2" if value.endswith("2") and value != "t2v_2_2#URLs" else "transformer"
    assert catalog["mine"].slots["transformer_2"] == catalog["t2v_2_2"].slots[slot]


def test_a_module_by_the_list_of_another_key(root, define):
    define("mine", {"architecture": "vace_14B", "URLs": "t2v", "modules": ["other#URLs"]})
    define("all", {"architecture": "vace_14B", "URLs": "t2v", "modules": "vace_14B"})
    define("other", {"architecture": "t2v", "URLs": WEIGHTS})
    catalog = load_catalog(root)
    assert [version.url for version in catalog["mine"].slots["modules[0]"]] == WEIGHTS
    assert catalog["all"].slots["modules[0]"] == catalog["vace_14B"].slots["modules[0]"]


def test_get_has_a_default(root):
    catalog = load_catalog(root)
    assert catalog.get("nowhere") is None
    assert catalog.get("t2v").id == "t2v"


def test_a_new_working_folder_says_what_belongs_where(root):
    fresh = root / "fresh"
    prepare_root(fresh)
    assert "settings export" in (fresh / "settings" / "README.txt").read_text(encoding="utf-8")
    assert not load_catalog(fresh).problems()
    (fresh / "settings" / "README.txt").unlink()
    prepare_root(fresh)
    assert not list((fresh / "settings").iterdir())


@pytest.mark.parametrize(
    ("value", "weights", "words"),
    [
        ("nosuch", "", "Invalid value 'nosuch': invalid item 'nosuch'"),
        ("0.5 x", "", "'x' is not a number. The weights are 1."),
        ([2000, 1], "", "is not from -1000 to 1000"),
        (["1 0.5", 1], "", "'1 0.5' is not the weight of one LoRA"),
        ("mine", "", "circular: mine -> mine. The weights are 1."),
        ("left", "", "circular: left -> right -> left. The weights are 1."),
        ([1, 0.5, 2], "1 0.5", "3 weights for 2 LoRAs: the last one is not used in [1, 0.5, 2]."),
        (["", 0.3], "1 0.3", ""),
        ("0.5\n# note\n1", "0.5 1", ""),
        ("", "", ""),
    ],
)
def test_odd_weights_of_loras_are_reported_with_their_file(root, define, value, weights, words):
    loras = ["https://h/a.safetensors", "https://h/b.safetensors"]
    define("left", {"architecture": "t2v", "URLs": WEIGHTS, "loras": loras, "loras_multipliers": "right"})
    define("right", {"architecture": "t2v", "URLs": WEIGHTS, "loras": loras, "loras_multipliers": "left"})
    path = define("mine", {"architecture": "t2v", "URLs": WEIGHTS, "loras": loras, "loras_multipliers": value})
    definition = load_catalog(root)["mine"]
    assert (definition.runnable, definition.lora_multipliers) == (True, weights)
    if not words:
        assert definition.notices == ()
        return
    (problem,) = definition.notices
    assert (problem.severity, problem.where) == ("warning", "model.loras_multipliers")
    assert words in problem.message
    assert problem.fix
    assert problem.file == str(root / "finetunes" / "left.json" if value == "left" else path)


def test_weights_that_others_refer_to_are_reported_once(root, define):
    loras = ["https://h/a.safetensors"]
    define("l", {"architecture": "t2v", "URLs": WEIGHTS, "loras": loras, "loras_multipliers": "nosuch"})
    define("shared", {"architecture": "t2v", "URLs": WEIGHTS, "loras": "l", "loras_multipliers": "l"})
    catalog = load_catalog(root)
    assert catalog["shared"].notices == catalog["l"].notices
    assert [problem.where for problem in catalog.problems()] == ["model.loras_multipliers"]


def test_components_of_its_own_are_listed_referred_to_and_inherited(root, define):
    own = {
        "text_encoder_URLs": ["https://h/t_bf16.safetensors"],
        "VAE_URLs": ["vae.safetensors"],
        "text_encoder_folder": "umt5",
    }
    define("o", {"architecture": "t2v", "URLs": WEIGHTS, **own})
    define("r", {"architecture": "t2v", "URLs": WEIGHTS, "text_encoder_URLs": "o", "VAE_URLs": "o#text_encoder_URLs"})
    define("t2v", own)  # overrides the base model
    define("child", {"architecture": "t2v", "URLs": WEIGHTS, "VAE_URLs": ["other.safetensors"]})
    catalog = load_catalog(root)
    urls = {
        id: {slot: [row.url for row in rows] for slot, rows in catalog[id].component_versions.items()} for id in "or"
    }
    assert urls["o"] == {"text_encoder": own["text_encoder_URLs"], "vae": own["VAE_URLs"]}
    assert urls["r"] == {"text_encoder": own["text_encoder_URLs"], "vae": own["text_encoder_URLs"]}
    assert catalog["o"].text_encoder_folder == catalog["child"].text_encoder_folder == "umt5"
    assert [row.url for row in catalog["child"].component_versions["vae"]] == ["other.safetensors"]
    assert [row.url for row in catalog["child"].component_versions["text_encoder"]] == own["text_encoder_URLs"]
    assert all(catalog[id].runnable and not catalog[id].notices for id in ("o", "r", "child"))
    assert set(catalog["o"].slots) == {"transformer"}


@pytest.mark.parametrize("folder", ["../x", "/etc", "a/../../b", "~/x", "C:\\x", "a\0b", 3])
def test_the_folder_of_a_text_encoder_stays_inside(root, define, folder):
    define("o", {"architecture": "t2v", "URLs": WEIGHTS, "text_encoder_folder": folder})
    assert "folder below ckpts" in str(next(iter(load_catalog(root).broken.values())))
