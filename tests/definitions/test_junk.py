"""Definitions made of junk: whatever a stranger writes, the answer is a value or an error of ours."""

import json
import os
import random
import sys

import pytest

from reeltune import explain, load_catalog
from reeltune.errors import ReeltuneError
from reeltune.families.vocabulary import KEYS
from reeltune.machine import Machine
from reeltune.request.build import build_request
from reeltune.request.parse import complete_settings
from reeltune.settings import split_videos

JUNK = [
    None, True, 5, -1.5, float("inf"), "", "x", "t2v", "https://h/x_bf16.safetensors", "ckpts/../../x", "a\0b", "C:\\x",
    [], {}, "9" * 400, 1e300, "https://[bad", "file:///etc/passwd", "~/x.safetensors", ".", "javascript://x/y", "\u202e",
]  # fmt: skip
MODEL_KEYS = [
    "name",
    "architecture",
    "description",
    "URLs",
    "URLs2",
    "preload_URLs",
    "modules",
    "loras",
    "loras_multipliers",
    "auto_quantize",
    "components",
    "sha256",
    "visible",
    "zzz",
]


def junk(rng, depth=0):
    nested = [[junk(rng, depth + 1) for _ in range(3)], {"a": junk(rng, depth + 1)}] if depth < 2 else []
    return rng.choice(JUNK + nested)


def model(rng):
    made = {key: junk(rng) for key in rng.sample(MODEL_KEYS, rng.randint(0, 6))}
    if rng.random() < 0.8:
        made["architecture"] = rng.choice(["t2v", "i2v_720p", "hunyuan"])
    if rng.random() < 0.6:
        made["URLs"] = rng.choice(
            [["https://h/x_bf16.safetensors", junk(rng)], ["https://h/x_bf16.safetensors"], "t2v"]
        )
    return made


def use(catalog):
    """Everything short of loading."""
    catalog.summaries()
    catalog.problems()
    definition = catalog["f"]
    json.dumps(explain(definition, machine=Machine(1, 1)).as_json())
    settings, _ = complete_settings(definition, {})
    build_request(definition, split_videos(settings)[0])


def test_junk_never_escapes_as_another_error(root):
    rng, whole = random.Random(1), 0
    for _ in range(200):
        settings = {key: junk(rng) for key in rng.sample(list(KEYS), rng.randint(0, 3))}
        text = json.dumps({"model": model(rng), **settings})
        (root / "finetunes" / "f.json").write_text(text, encoding="utf-8")
        try:
            use(load_catalog(root))
            whole += 1
        except ReeltuneError as error:
            assert str(error)  # noqa: PT017 - anything else fails the test by itself
    assert whole > 5


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep names as text")
def test_a_file_name_that_is_not_utf_8_is_set_aside_and_stops_nothing(root, define):
    define("mine", {"architecture": "t2v", "URLs": ["https://h/x_bf16.safetensors"]})
    content = (root / "finetunes" / "mine.json").read_bytes()
    odd = root / "finetunes" / os.fsdecode(b"caf\xe9.json")
    odd.write_bytes(content)
    catalog = load_catalog(root)
    assert "mine" in catalog
    assert list(catalog.broken) == [odd]
    assert "not valid UTF-8" in str(catalog.broken[odd])
    for text in (*catalog, *map(str, catalog.problems()), str(catalog.broken[odd])):
        text.encode("utf-8")
