"""What a choice takes in memory, and the refusal before anything is loaded."""

from dataclasses import replace

import pytest

from conftest import head_of
from reeltune import Engine, Preferences, explain, load_catalog
from reeltune.errors import NotEnoughMemory
from reeltune.fetch.estimate import estimate
from reeltune.fetch.profiles import Profile, check_memory, choose_profile
from reeltune.machine import Gpu, Machine

MACHINE = Machine(24 * 10**9, 20 * 10**9)


@pytest.fixture
def big(root, define, headers):
    """The true 14B header over a hole of its size."""
    start, size = head_of(headers["wan_t2v_14B"])
    (root / "ckpts").mkdir()
    with (root / "ckpts" / "x_bf16.safetensors").open("wb") as file:
        file.write(start)
        file.truncate(size)
    define("big", {"architecture": "t2v", "URLs": ["https://h/x_bf16.safetensors"], "auto_quantize": True})
    return load_catalog(root)["big"]


def test_16_bits_and_int8_on_load(big):
    wide = estimate(explain(big, Preferences(quantization="bf16"), machine=MACHINE))
    assert wide.parameters == pytest.approx(14.3e9, rel=0.01)
    assert wide.transformer == pytest.approx(28.6e9, rel=0.01)
    assert wide.disk is None  # nobody knows how large the components are
    narrow = estimate(explain(big, Preferences(), machine=MACHINE))
    assert narrow.transformer == pytest.approx(14.7e9, rel=0.01)
    assert narrow.peak == narrow.transformer


def refusing(explanation):
    check_memory(explanation, choose_profile(explanation))


def test_refused_before_loading_with_the_number_and_the_advice(big):
    with pytest.raises(NotEnoughMemory, match="cpu has 24,000,000,000") as caught:
        refusing(explain(big, Preferences(quantization="bf16"), machine=MACHINE))
    assert "int8" in caught.value.hint
    assert caught.value.needed > caught.value.available
    refusing(explain(big, Preferences(), machine=MACHINE))
    card = Machine(2**40, 2**40, (Gpu("small", 8 * 2**30, 8.6),))
    with pytest.raises(NotEnoughMemory, match="cuda has 8,589,934,592"):
        refusing(explain(big, Preferences(memory_profile="resident"), machine=card))
    with pytest.raises(NotEnoughMemory, match="cpu has 10,000,000,000"):
        refusing(explain(big, Preferences(), machine=Machine(10**10, 10**10, card.gpus)))


GB = 10**9


@pytest.mark.parametrize(
    ("card", "ram", "quantization", "profile"),
    [
        (80, 128, "bf16", "resident"),
        (24, 128, "int8", "resident"),
        (18, 64, "int8", "resident"),
        (24, 64, "bf16", "streamed"),
        (8, 64, "int8", "streamed"),
        (8, 16, "int8", "minimum"),
        (0, 128, "int8", "resident"),
        (0, 24, "int8", "stages"),
    ],
)
def test_the_fastest_profile_that_fits(big, card, ram, quantization, profile):
    machine = Machine(ram * GB, ram * GB, (Gpu("card", card * GB, 8.6),) if card else ())
    explanation = explain(big, Preferences(quantization=quantization), machine=machine)
    assert choose_profile(explanation).name == profile
    wish = explain(big, Preferences(quantization=quantization, memory_profile="minimum"), machine=machine)
    assert choose_profile(wish) == Profile("minimum", "as asked")


def test_stages_where_the_encoders_do_not_fit_beside_it(big, root):
    folder = root / "ckpts" / "umt5-xxl"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "spiece.model", "special_tokens_map.json"):
        (folder / name).write_text("{}")
    explanation = explain(big, Preferences(), machine=Machine(128 * GB, 128 * GB, (Gpu("card", 18 * GB, 8.6),)))
    wide = [replace(item, bytes=11 * GB) if item.subject == "text_encoder" else item for item in explanation.items]
    known = [replace(item, bytes=item.bytes or 1) for item in wide]
    assert choose_profile(replace(explanation, items=tuple(known))).name == "stages"


def test_the_engine_refuses_too(root):
    definition = load_catalog(root)["nano_t2v"]
    with Engine(definition, machine=Machine(10**6, 10**6)) as engine, pytest.raises(NotEnoughMemory):
        engine.generate(num_inference_steps=1)


def test_what_is_not_known_is_not_guessed(root):
    assert estimate(explain(load_catalog(root)["t2v"], machine=MACHINE)).transformer is None
