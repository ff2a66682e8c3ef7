"""What a choice takes in memory, and the refusal before anything is loaded."""

import pytest

from reeltune import Engine, Preferences, explain, load_catalog
from reeltune.errors import NotEnoughMemory
from reeltune.machine import Gpu, Machine
from reeltune.planning.estimate import check_memory, estimate

MACHINE = Machine(24 * 10**9, 20 * 10**9)


def test_16_bits_and_int8_on_load(big):
    wide = estimate(explain(big, Preferences(quantization="bf16"), machine=MACHINE))
    assert wide.parameters == pytest.approx(14.3e9, rel=0.01)
    assert wide.transformer == pytest.approx(28.6e9, rel=0.01)
    assert wide.disk is None  # nobody knows how large the components are
    narrow = estimate(explain(big, Preferences(), machine=MACHINE))
    assert narrow.transformer == pytest.approx(14.7e9, rel=0.01)
    assert narrow.peak == narrow.transformer


def test_refused_before_loading_with_the_number_and_the_advice(big):
    with pytest.raises(NotEnoughMemory, match="cpu has 24,000,000,000") as caught:
        check_memory(explain(big, Preferences(quantization="bf16"), machine=MACHINE))
    assert "int8" in caught.value.hint
    assert caught.value.needed > caught.value.available
    check_memory(explain(big, Preferences(), machine=MACHINE))
    card = (Gpu("small", 8 * 2**30, 8.6),)
    check_memory(explain(big, Preferences(), machine=Machine(2**40, 2**40, card)))  # sent over in parts
    with pytest.raises(NotEnoughMemory, match="cuda has 8,589,934,592 of memory, the machine 12,000,000,000"):
        check_memory(explain(big, Preferences(), machine=Machine(12 * 10**9, 10**9, card)))
    wide = (Gpu("wide", 48 * 2**30, 8.6),)
    check_memory(explain(big, Preferences(quantization="bf16"), machine=Machine(12 * 10**9, 10**9, wide)))


def test_the_engine_refuses_too(root):
    definition = load_catalog(root)["nano_t2v"]
    with Engine(definition, machine=Machine(10**6, 10**6)) as engine, pytest.raises(NotEnoughMemory):
        engine.generate(num_inference_steps=1)


def test_what_is_not_known_is_not_guessed(root):
    assert estimate(explain(load_catalog(root)["t2v"], machine=MACHINE)).transformer is None
