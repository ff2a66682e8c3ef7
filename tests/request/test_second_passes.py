"""The passes of LTX-2 from settings: its distilled LoRA counts once, and odd values are reported."""

import json

import pytest

from reeltune import load_catalog
from reeltune.definitions.writer import replace_urls
from reeltune.request.build import build_request
from reeltune.request.parse import complete_settings, split_videos

H = "https://h/"
PUBLISHED = H + "ltx-2-19b-distilled-lora-384.safetensors"
OWN, STYLE = H + "ltx-2-19b-distilled-lora-175.safetensors", H + "style.safetensors"


@pytest.fixture
def request_of(root, define):
    """A function that defines a model of LTX-2, and returns the request of a video with it, and its notices."""

    def make(model, **settings):
        whole = {"name": "Mine", "architecture": "ltx2_19B", "URLs": [H + "mine_bf16.safetensors"], **model}
        define("mine", whole, prompt="a fox", num_inference_steps=4)
        definition = load_catalog(root)["mine"]
        values, notices = complete_settings(definition, settings)
        request, more = build_request(definition, split_videos(values)[0], inputs_needed=False)
        return request, [*notices, *more]

    return make


@pytest.mark.parametrize(
    ("model", "weights"),
    [
        ({"ltx2_lora_distilled": PUBLISHED}, {PUBLISHED: [0, 1]}),
        ({"ltx2_lora_distilled": PUBLISHED, "loras": [OWN], "loras_multipliers": ["0;0.7"]}, {OWN: [0, 0.7]}),
        (
            {"ltx2_lora_distilled": PUBLISHED, "loras": [PUBLISHED], "loras_multipliers": ["0.6;1"]},
            {PUBLISHED: [0.6, 1]},
        ),
        (
            {"ltx2_lora_distilled": PUBLISHED, "loras": [PUBLISHED, STYLE], "loras_multipliers": ["0;1", "0.8"]},
            {PUBLISHED: [0, 1], STYLE: [0.8, 0.8]},
        ),
    ],
)
def test_the_distilled_lora_counts_once(request_of, model, weights):
    request, _ = request_of(model)
    assert {lora.source: [lora.weights[0], lora.weights[-1]] for lora in request.loras} == weights


def test_no_blocks_stand_for_those_of_the_architecture(request_of):
    plain, _ = request_of({})
    empty, _ = request_of({}, perturbation_layers=[])
    assert {scale.blocks for scale in empty.passes[0].guidance} == {scale.blocks for scale in plain.passes[0].guidance}
    assert all(scale.blocks for scale in empty.passes[0].guidance if scale.perturbation)


def test_a_third_pass_is_reported(request_of):
    request, notices = request_of({}, guidance_phases=3)
    assert len(request.passes) == 2
    assert "guidance_phases is 3: ltx2_19B makes two passes at most." in notices


def test_urls_of_the_distilled_lora_are_replaced(root, define):
    define("mine", {"architecture": "ltx2_19B", "URLs": [H + "x.safetensors"], "ltx2_lora_distilled": PUBLISHED})
    path = root / "finetunes" / "mine.json"
    counts = replace_urls(path, lambda url: url.replace(H, "https://other/"))
    assert counts == {"URLs": 1, "ltx2_lora_distilled": 1}
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    assert model["ltx2_lora_distilled"] == PUBLISHED.replace(H, "https://other/")


def test_a_finetune_of_ditto_has_the_loras_of_its_modes(root, define):
    define("mine", {"name": "Mine", "architecture": "vace_ditto_14B", "URLs": [H + "mine_bf16.safetensors"]})
    catalog = load_catalog(root)
    assert catalog["mine"].preload == catalog["vace_ditto_14B"].preload
    assert len(catalog["mine"].preload) == 3
