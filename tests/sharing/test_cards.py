"""The card of a published model: written, and edited only between its markers."""

import json

import pytest
import yaml

from reeltune.sharing.card import CardFacts, CardFile, card_text
from reeltune.sharing.examples import Example
from reeltune.sharing.hub import LargeFile
from reeltune.sharing.licenses import License


def facts(tmp_path, **changes):
    video = LargeFile("examples/ab.mp4", tmp_path / "x.mp4", 5, "0" * 64)
    values = {
        "title": "Glow *in* <the> dark",
        "description": "Neon.",
        "license": License("apache-2.0"),
        "base_model": "reeltune/nano",
        "relation": "finetune",
        "pipeline": "text-to-video",
        "files": [CardFile("glow_bf16.safetensors", "transformer", "bf16", 5_754_216, "ab" * 32, "https://h/x")],
        "settings": {"num_inference_steps": 20, "prompt": "a | b"},
        "examples": [Example(video, 'a "red"\ncircle: <b>', {})],
        "definition_url": "https://huggingface.co/me/glow/blob/main/glow.json",
        "definition_id": "glow",
    }
    return CardFacts(**{**values, **changes})


def front_matter(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_a_new_card(tmp_path):
    text = card_text(None, facts(tmp_path))
    assert front_matter(text) == {
        "license": "apache-2.0",
        "base_model": "reeltune/nano",
        "base_model_relation": "finetune",
        "pipeline_tag": "text-to-video",
        "library_name": "diffusion-single-file",
        "tags": ["reeltune", "video"],
        "widget": [{"text": 'a "red"\ncircle: <b>', "output": {"url": "examples/ab.mp4"}}],
    }
    assert r"# Glow \*in\* \<the\> dark" in text
    assert r"| `prompt` | a \| b |" in text
    assert '<video controls loop src="examples/ab.mp4"></video>' in text
    assert r'> a "red" circle: \<b\>' in text


def test_another_license(tmp_path):
    text = card_text(None, facts(tmp_path, license=License("other", "Mine", "https://h/license")))
    assert front_matter(text)["license_name"] == "Mine"
    assert front_matter(text)["license_link"] == "https://h/license"


def test_only_the_parts_between_the_markers_change(tmp_path):
    text = card_text(None, facts(tmp_path))
    text = text.replace("# reeltune: end\n", "# reeltune: end\nlanguage: en\n", 1) + "\nMy own words.\n"
    text = text.replace("\n\n# Glow", "\n\nMine above.\n\n# Glow")
    changed = card_text(text, facts(tmp_path, description="Brighter.", license=License("mit")))
    assert "My own words." in changed
    assert "Mine above." in changed
    assert "Brighter." in changed
    assert "Neon." not in changed
    assert front_matter(changed)["license"] == "mit"
    assert front_matter(changed)["language"] == "en"
    outside = [line for line in text.splitlines() if line in ("language: en", "Mine above.", "My own words.")]
    assert [line for line in changed.splitlines() if line in outside] == outside
    assert card_text(changed, facts(tmp_path, description="Brighter.", license=License("mit"))) == changed


@pytest.mark.parametrize(
    "existing",
    [
        "# Mine\n\nWords.\n",
        "---\nlicense: mit\ntags:\n- a\n---\n# Mine\n\nWords.\n",
        "---\r\nlicense: mit\r\n---\r\nWords.",
    ],
)
def test_a_card_of_the_author_keeps_everything(tmp_path, existing):
    text = card_text(existing, facts(tmp_path))
    values = front_matter(text.replace("\r\n", "\n"))
    assert values["license"] == ("mit" if "mit" in existing else "apache-2.0")  # what is written there counts
    assert values["base_model"] == "reeltune/nano"
    for line in existing.splitlines():
        assert line in text
    assert card_text(text, facts(tmp_path)) == text


def test_markers_inside_texts_are_harmless(tmp_path):
    text = card_text(None, facts(tmp_path, description="<!-- reeltune: end -->\n---\n# reeltune: end"))
    again = card_text(text, facts(tmp_path))
    assert json.dumps(again).count("reeltune: end -->") == 1
