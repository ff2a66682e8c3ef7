"""Which folders of profiles a definition names."""

import pytest

from reeltune import load_catalog

WEIGHTS = ["https://h/x_bf16.safetensors"]


@pytest.mark.parametrize(
    ("keys", "folders"),
    [
        ({}, ("wan",)),
        ({"profiles_dir": "mine"}, ("mine",)),
        ({"profiles_dir": ["mine", "wan", "mine"]}, ("mine", "wan")),
        ({"profile_dirs": ["mine"]}, ("mine",)),
        ({"profiles_dir": ["a"], "profile_dirs": ["b"]}, ("a",)),
        ({"profiles_dir": [""]}, ()),
        ({"profiles_dir": ""}, ()),
        ({"profiles_dir": []}, ()),
        ({"profiles_dir": None}, ("wan",)),
    ],
)
def test_a_definition_names_the_folders_of_its_profiles(root, define, keys, folders):
    define("mine", {"architecture": "t2v", "URLs": WEIGHTS, **keys})
    definition = load_catalog(root)["mine"]
    assert definition.profile_folders == folders
    assert not definition.notices


@pytest.mark.parametrize("value", ["../x", "a/b", "..", "C:\\x", " x", "x\n", 7, {"a": 1}, "x" * 300, ["wan", "../x"]])
def test_other_values_are_reported_and_left_out(root, define, value):
    define("mine", {"architecture": "t2v", "URLs": WEIGHTS, "profiles_dir": value})
    definition = load_catalog(root)["mine"]
    assert definition.profile_folders == ("wan",)
    assert "model.profiles_dir" in str(definition.notices[0])


def test_a_finetune_inherits_the_folders_of_its_base_model(root, define):
    define("i2v_720p", {"profiles_dir": ["special"]})  # overrides the built-in base model key by key
    define("mine", {"architecture": "i2v_720p", "URLs": WEIGHTS})
    assert load_catalog(root)["mine"].profile_folders == ("special",)


def test_a_second_transformer_makes_it_a_model_of_wan_2_2(root, define):
    define("mine", {"architecture": "t2v", "URLs": WEIGHTS, "URLs2": ["https://h/low_bf16.safetensors"]})
    assert load_catalog(root)["mine"].profile_folders == ("wan_2_2",)


def test_built_in_models_that_no_published_profile_fits_have_none(root):
    catalog = load_catalog(root)
    without = {id for id in catalog if not catalog[id].profile_folders}
    assert without == {
        "nano_i2v", "nano_neon", "nano_vace", "vace_14B_fusionix", "sky_df_1.3B", "sky_df_14B", "sky_df_720p_14B",
        "lucy_edit_fastwan", "lucy_edit_fastwan_1_1", "chrono_edit_distill", "hunyuan_1_5_480_t2v_lightx2v",
        "hunyuan_1_5_480_i2v_step_distilled",
    }  # fmt: skip
