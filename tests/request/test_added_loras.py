"""LoRAs that are added to settings keep the weights of those before them."""

import pytest

from reeltune import load_catalog
from reeltune.errors import SettingsError
from reeltune.request.loras import add_loras
from reeltune.request.parse import preview
from reeltune.settings.multipliers import parse_multipliers


@pytest.mark.parametrize(
    ("text", "names", "weights"),
    [
        ("0.5\n# note", ["a"], [0.5, 0.8]),
        ("# note", ["a"], [1, 0.8]),
        ("1 0.5", ["a"], [1, 0.8]),
        ("1 2 | 0.5", ["a"], [1, 0.8]),
        ("1 | 0.5 3", ["a", "b"], [1, 0.5, 0.8]),
        (None, None, [0.8]),
    ],
)
def test_each_lora_keeps_its_weight(text, names, weights):
    settings = add_loras({"activated_loras": names, "loras_multipliers": text}, [("new", "0.8")])
    assert settings["activated_loras"] == [*(names or []), "new"]
    assert [item.phases[0][0] for item in parse_multipliers(settings["loras_multipliers"])] == weights


def test_surplus_weights_of_a_definition_are_not_those_of_the_settings(root, define):
    urls = ["https://h/x_bf16.safetensors"]
    define("m", {"architecture": "t2v", "URLs": urls, "loras": ["https://h/a.safetensors"], "loras_multipliers": "1 2"})
    definition = load_catalog(root)["m"]
    assert [problem.where for problem in definition.notices] == ["model.loras_multipliers"]
    settings = {"prompt": "x", "activated_loras": ["b.safetensors"]}
    assert preview(definition, {**settings, "loras_multipliers": "0.5"}).notices == ()
    (notice,) = preview(definition, {**settings, "loras_multipliers": "0.5 0.25 3"}).notices
    assert notice == "loras_multipliers has 3 items for 1 LoRA: the last 2 are not used."


def test_the_settings_in_a_video_have_no_tokens(root, define):
    define("m", {"architecture": "t2v", "URLs": ["https://h/x_bf16.safetensors"]})
    loras = [
        "https://civitai.com/api/download/models/5?type=Model&token=SECRET",
        "https://me:SECRET@h/a.safetensors?X-Amz-Signature=SECRET",
        "style.safetensors",
    ]
    request = preview(load_catalog(root)["m"], {"prompt": "x", "activated_loras": loras}).requests[0]
    assert request.settings["activated_loras"] == [
        "https://civitai.com/api/download/models/5?type=Model", "https://h/a.safetensors", "style.safetensors",
    ]  # fmt: skip
    assert [lora.source for lora in request.loras] == loras


@pytest.mark.parametrize(
    ("architecture", "weights", "advised"),
    [("t2v", "1;0", True), ("k5_lite_t2v", "1;0", False), ("ltxv_13B", "1;0;1", False), ("ltx2_19B", "1;0;1", False)],
)
def test_phases_are_only_advised_where_they_can_be_set(root, define, architecture, weights, advised):
    define("m", {"architecture": architecture, "URLs": ["https://h/x_bf16.safetensors"]})
    settings = {"prompt": "x", "activated_loras": ["a.safetensors"], "loras_multipliers": weights}
    with pytest.raises(SettingsError, match="has weights for") as caught:
        preview(load_catalog(root)["m"], settings)
    assert ("Set guidance_phases" in caught.value.hint) == advised
