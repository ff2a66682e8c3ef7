import pytest

from reeltune.checkpoints.names import base_name, converted_name, lora_name, quantized_name, read_name


@pytest.mark.parametrize(
    ("name", "quantization", "dtype"),
    [
        ("wan2.1_text2video_14B_mbf16.safetensors", "none", "bf16"),
        ("Wan14BT2VFusioniX_fp16.safetensors", "none", "fp16"),
        ("Wan14BT2VFusioniX_FP16.safetensors", "none", "fp16"),
        ("wan2.1_image2video_480p_14B_quanto_mbf16_int8.safetensors", "quanto_int8", "bf16"),
        ("wan2.1_text2video_14B_quanto_mfp16_int8.safetensors", "quanto_int8", "fp16"),
        ("hunyuan_video_720_quanto_int8.safetensors", "quanto_int8", None),
        ("wan2.1_Vace_1_3B_module.safetensors", "none", None),
        ("smoothMixWan22I2VT2V_i2vHigh.safetensors", "none", None),
        ("aniWan2114BFp8E4m3fn_t2v.safetensors", "fp8", None),
        ("Wan2_2-I2V-A14B-HIGH_fp8_e4m3fn_scaled_KJ.safetensors", "fp8_scaled", None),
        ("minimax_h3_fl2va_pruned_int8_convrot.safetensors", "int8_scaled", None),
        ("Wan2.2-I2V-A14B-LowNoise-Q4_K_M.gguf", "gguf", None),
        ("model_nvfp4.safetensors", "nvfp4", None),
    ],
)
def test_names_in_the_wild(name, quantization, dtype):
    facts = read_name(f"https://huggingface.co/x/y/resolve/main/{name}?download=true")
    assert (facts.quantization, facts.dtype) == (quantization, dtype)


@pytest.mark.parametrize(("name", "format"), [("a.gguf", "gguf"), ("a.ckpt", "pickle"), ("12345", "unknown")])
def test_formats(name, format):
    assert read_name(name).format == format


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://h/a/b%20c.safetensors?x=1#y", "b c.safetensors"),
        ("ckpts/a.safetensors", "a.safetensors"),
        ("C:\\models\\a.safetensors", "a.safetensors"),
        ("https://civitai.com/api/download/models/1", "1"),
    ],
)
def test_base_names(url, name):
    assert base_name(url) == name


@pytest.mark.parametrize(
    ("name", "dtype", "quantized"),
    [
        ("x_bf16.safetensors", "bf16", "x_quanto_bf16_int8.safetensors"),
        ("x_bf16.safetensors", "fp16", "x_quanto_fp16_int8.safetensors"),
        ("x_mbf16.safetensors", "bf16", "x_quanto_mbf16_int8.safetensors"),
        ("x_mfp16.safetensors", "fp16", "x_quanto_mfp16_int8.safetensors"),
        ("x.safetensors", "fp16", "x_quanto_fp16_int8.safetensors"),
        ("x_bf16v2.safetensors", "bf16", "x_bf16v2_quanto_bf16_int8.safetensors"),
        ("Wan-bf16.safetensors", "fp16", "Wan_quanto_fp16_int8.safetensors"),
        ("x_fp8_e4m3fn_scaled.safetensors", "bf16", "x_quanto_bf16_int8.safetensors"),
        ("aniWanBFp8E4m3fn_t2v.safetensors", "bf16", "aniWanBFp8E4m3fn_t2v_quanto_bf16_int8.safetensors"),
        ("x_bf16.sft", "bf16", "x_quanto_bf16_int8.safetensors"),
    ],
)
def test_name_of_the_quantized_file(name, dtype, quantized):
    assert quantized_name(name, dtype) == quantized
    facts = read_name(quantized)
    assert (facts.quantization, facts.dtype) == ("quanto_int8", dtype)


@pytest.mark.parametrize(
    ("name", "converted"),
    [("x_fp16.safetensors", "x_bf16.safetensors"), ("x_mfp16.safetensors", "x_mbf16.safetensors"),
     ("x_fp8_scaled.safetensors", "x_bf16.safetensors"), ("x.safetensors", "x_bf16.safetensors")],
)  # fmt: skip
def test_name_of_the_converted_file(name, converted):
    assert converted_name(name, "bf16") == converted


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("folder/style.safetensors", "style"),
        ("https://h/a%20b.safetensors?download=true|accelerators", "a b"),
        ("style.v2", "style.v2"),
        ("", ""),
    ],
)
def test_names_of_loras(source, name):
    assert lora_name(source) == name
