import dataclasses
from pathlib import Path

import pytest

from reeltune import Preferences, load_catalog
from reeltune.checkpoints.identify import Identity
from reeltune.errors import ChoiceError, DeviceError
from reeltune.library.inventory import FileOnDisk
from reeltune.planning.choose import Facts, choose

H = "https://h/"
BF16, FP16 = H + "x_bf16.safetensors", H + "x_fp16.safetensors"
Q_BF16, Q_FP16 = H + "x_quanto_bf16_int8.safetensors", H + "x_quanto_fp16_int8.safetensors"
BOTH = ("bf16", "fp16")


@pytest.fixture
def pick(root, define):
    def run(urls, *, quantization="int8", dtype="auto", computable=BOTH, auto=False, facts=None, architecture="t2v"):
        define("mine", {"architecture": architecture, "URLs": urls, "auto_quantize": auto})
        definition = load_catalog(root)["mine"]
        return choose(definition, Preferences(quantization=quantization, dtype=dtype), computable, facts or {})

    return run


def here(identity=None):
    return Facts(FileOnDisk(Path("/x"), 10, identity))


def identity(**changes):
    base = Identity("wan", ("t2v",), ("t2v", "t2v_2_2"), "model", "original", "", "none", "bf16", {}, 1, 2, {}, ())
    return dataclasses.replace(base, **changes)


ALL = [BF16, FP16, Q_BF16, Q_FP16]


@pytest.mark.parametrize(
    ("urls", "wish", "computable", "auto", "chosen", "dtype", "on_load"),
    [
        (ALL, ("int8", "auto"), BOTH, False, Q_BF16, "bf16", False),
        (ALL, ("int8", "fp16"), BOTH, False, Q_FP16, "fp16", False),
        (ALL, ("bf16", "auto"), BOTH, False, BF16, "bf16", False),
        (ALL, ("bf16", "fp16"), BOTH, False, FP16, "fp16", False),
        (ALL, ("int8", "auto"), ("fp16",), False, Q_FP16, "fp16", False),
        ([BF16], ("int8", "fp16"), BOTH, False, BF16, "fp16", False),  # converts while loading
        ([BF16], ("int8", "auto"), BOTH, True, BF16, "bf16", True),
        ([BF16, Q_BF16], ("int8", "auto"), ("fp16",), True, BF16, "fp16", True),  # every quanto file is rejected
        ([BF16, Q_BF16], ("int8", "auto"), ("fp16",), False, BF16, "fp16", False),
        ([BF16], ("bf16", "auto"), BOTH, True, BF16, "bf16", False),  # 16 bits asked: never quantized
        ([Q_BF16], ("bf16", "auto"), BOTH, False, Q_BF16, "bf16", False),
        ([Q_BF16, BF16], ("int8", "fp16"), BOTH, False, Q_BF16, "bf16", False),  # quantization outranks data type
        ([H + "x.safetensors"], ("int8", "auto"), BOTH, False, H + "x.safetensors", "bf16", False),
    ],
)
def test_choices(pick, urls, wish, computable, auto, chosen, dtype, on_load):
    selection = pick(urls, quantization=wish[0], dtype=wish[1], computable=computable, auto=auto)
    choice = selection.choices["transformer"]
    assert (choice.version.url, choice.dtype, choice.quantize_on_load) == (chosen, dtype, on_load)
    assert len(selection.rejected) == len(urls) - 1
    assert all(row.reason for row in selection.rejected)


def test_unmet_wishes_are_said_once(pick):
    assert "not set auto_quantize" in " ".join(pick([BF16]).notices)
    assert "no usable 16-bit version" in " ".join(pick([Q_BF16], quantization="bf16").notices)
    assert "computes in bf16" in " ".join(pick([Q_BF16], dtype="fp16").notices)
    hunyuan = pick(ALL, dtype="fp16", architecture="hunyuan")
    assert hunyuan.choices["transformer"].version.url == Q_BF16
    assert "Hunyuan Video does not compute in it: bf16 is used" in " ".join(hunyuan.notices)
    assert not pick(ALL).notices


def test_what_is_on_disk_wins_among_equals_but_not_over_the_wish(pick):
    other = H + "y_quanto_bf16_int8.safetensors"
    assert pick([Q_BF16, other], facts={other: here()}).choices["transformer"].version.url == other
    assert pick([BF16, Q_BF16], facts={BF16: here()}).choices["transformer"].version.url == Q_BF16


def test_the_header_beats_the_name(pick):
    facts = {BF16: here(identity(quantization="quanto_int8", dtype="fp16"))}
    choice = pick([BF16], facts=facts).choices["transformer"]
    assert (choice.quantization, choice.dtype) == ("quanto_int8", "fp16")


FP8 = H + "x_fp8_e4m3fn_scaled.safetensors"


def test_fp8_comes_after_what_was_asked_for(pick):
    assert pick([FP8, BF16], quantization="bf16").choices["transformer"].version.url == BF16
    assert pick([FP8, Q_BF16]).choices["transformer"].version.url == Q_BF16
    assert pick([Q_BF16, FP8], quantization="bf16").choices["transformer"].version.url == FP8
    assert pick([FP8, BF16]).choices["transformer"].version.url == BF16


def test_fp8_alone_stays_fp8_or_is_turned_into_16_bits(pick):
    selection = pick([FP8])
    choice = selection.choices["transformer"]
    assert (choice.keep, choice.quantize_on_load) == (True, False)
    reason = "scaled fp8, no usable int8 version is listed, its weights stay in 8 bits, runs in bf16"
    assert choice.reason.startswith(reason)
    assert not selection.notices
    selection = pick([FP8], quantization="bf16", dtype="fp16")
    choice = selection.choices["transformer"]
    assert (choice.keep, choice.quantize_on_load, choice.dtype) == (False, False, "fp16")
    assert "fp8, converted to 16 bits while loading" in selection.notices[0]


def test_fp8_is_quantized_where_the_device_has_no_fp8(root, define):
    define("mine", {"architecture": "t2v", "URLs": [FP8]})
    definition = load_catalog(root)["mine"]
    choice = choose(definition, Preferences(), BOTH, {}, stores_fp8=False).choices["transformer"]
    assert (choice.keep, choice.quantize_on_load) == (False, True)
    assert "quantized to int8 while loading" in choice.reason


INT8 = H + "x_int8_convrot.safetensors"


def test_fp8_may_be_preferred(pick):
    def first(urls):
        return pick(urls, quantization="fp8").choices["transformer"].version.url

    assert first([Q_BF16, BF16, FP8]) == FP8
    assert first([BF16, INT8, Q_BF16]) == Q_BF16
    assert first([BF16, INT8]) == INT8
    selection = pick([BF16], quantization="fp8", auto=True)
    assert selection.choices["transformer"].quantize_on_load
    assert not selection.notices
    assert "fp8 is preferred, but transformer has no usable fp8 version" in pick([BF16], quantization="fp8").notices[0]
    assert pick([FP8], quantization="fp8").choices["transformer"].reason.startswith("scaled fp8, its weights stay")


def test_scaled_int8_comes_after_quanto_and_before_what_must_be_quantized(pick):
    assert pick([INT8, Q_BF16]).choices["transformer"].version.url == Q_BF16
    choice = pick([BF16, FP8, INT8], auto=True).choices["transformer"]
    assert (choice.version.url, choice.keep, choice.quantize_on_load) == (INT8, True, True)
    assert choice.reason.startswith("scaled int8, its weights stay in 8 bits, runs in bf16")
    choice = pick([INT8], quantization="bf16").choices["transformer"]
    assert (choice.keep, choice.quantize_on_load) == (False, False)
    assert pick([INT8, FP8], quantization="bf16").choices["transformer"].version.url == FP8


GGUF = H + "x-Q8_0.gguf"


def test_gguf_ranks_after_16_bits_because_it_is_less_exact(pick):
    for quantization in ("int8", "bf16"):
        selection = pick([GGUF, FP16], quantization=quantization)
        assert selection.choices["transformer"].version.url == FP16
        assert selection.rejected[0].reason.endswith("GGUF is less exact")


def test_gguf_alone_is_quantized_or_turned_into_16_bits(pick):
    selection = pick([GGUF])
    choice = selection.choices["transformer"]
    assert (choice.quantize_on_load, choice.dtype) == (True, "bf16")
    assert choice.reason.startswith(
        "GGUF, no usable int8 version is listed: quantized to int8 while loading, runs in bf16"
    )
    assert not selection.notices
    selection = pick([GGUF], quantization="bf16", dtype="fp16")
    choice = selection.choices["transformer"]
    assert (choice.quantize_on_load, choice.dtype) == (False, "fp16")
    assert "GGUF, converted to 16 bits while loading" in selection.notices[0]


NVFP4 = H + "x_nvfp4.safetensors"


def test_nvfp4_ranks_last(pick):
    for quantization in ("bf16", "int8", "fp8"):
        for better in (FP16, GGUF, FP8):
            selection = pick([NVFP4, better], quantization=quantization)
            assert selection.choices["transformer"].version.url == better
            assert selection.rejected[0].reason.endswith("nvfp4 is less exact")
    assert pick([NVFP4, Q_BF16]).choices["transformer"].version.url == Q_BF16
    assert pick([NVFP4, FP8], quantization="fp8").choices["transformer"].version.url == FP8


def test_nvfp4_alone_is_quantized_or_turned_into_16_bits(pick):
    choice = pick([NVFP4]).choices["transformer"]
    assert (choice.quantize_on_load, choice.keep, choice.dtype) == (True, False, "bf16")
    assert choice.reason.startswith("nvfp4, no usable int8 version is listed: quantized to int8 while loading")
    selection = pick([NVFP4], quantization="bf16", dtype="fp16")
    choice = selection.choices["transformer"]
    assert (choice.quantize_on_load, choice.keep, choice.dtype) == (False, False, "fp16")
    assert "nvfp4, converted to 16 bits while loading" in selection.notices[0]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (H + "x-IQ3_S.gguf", "GGUF weights of the types IQ1 to IQ3"),
        (H + "x.ckpt", "pickle"),
        (H + "svdq-int4_r32-x.safetensors", "nunchaku"),
        (H + "x_w4a8.safetensors", "w4a8"),
        (H + "x_mxfp8.safetensors", "mxfp8"),
        ("ckpts/gone.safetensors", "not there"),
    ],
)
def test_what_cannot_be_loaded_is_rejected_by_name(pick, url, reason):
    selection = pick([url, BF16])
    assert selection.choices["transformer"].version.url == BF16
    assert reason in selection.rejected[0].reason
    with pytest.raises(ChoiceError, match=reason) as caught:
        pick([url])
    assert len(caught.value.rejected) == 1


def test_another_models_header_is_rejected_with_the_evidence(pick):
    wrong = identity(architectures=("i2v",), compatible=("i2v", "fun_inp"), evidence=("36 input channels",))
    selection = pick([BF16, FP16], facts={BF16: here(wrong)})
    assert selection.choices["transformer"].version.url == FP16
    assert "36 input channels" in next(row.reason for row in selection.rejected if row.version.url == BF16)


def test_a_device_that_shares_no_data_type(pick):
    with pytest.raises(DeviceError, match="computes in bf16"):
        pick(ALL, computable=("fp16",), architecture="hunyuan")


def test_modules_and_the_second_transformer_follow_the_data_type(root):
    catalog = load_catalog(root)
    for wish, token in (("fp16", "mfp16"), ("bf16", "mbf16")):
        selection = choose(catalog["vace_14B_2_2"], Preferences(dtype=wish), BOTH, {})
        assert set(selection.choices) == {"transformer", "transformer_2", "modules[0]"}
        assert all(
            token in choice.version.url and "int8" in choice.version.url for choice in selection.choices.values()
        )


def test_nothing_is_computed_from_the_world_outside(pick):
    assert pick(ALL) == pick(ALL)
