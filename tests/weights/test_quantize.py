"""The stream: what it writes is exact, complete and verified; whatever stops it, nothing else is touched."""

import base64
import hashlib
import json
import random
import subprocess
import sys
import time
from itertools import pairwise

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from test_families import CASES, random_model

from layouts import original_layout
from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.identify import identify
from reeltune.errors import Cancelled, CheckpointError, HeaderError, NotEnoughDisk, TensorMismatch, UnsupportedFormat
from reeltune.events import CancelToken, Progress
from reeltune.families.wan import WAN
from reeltune.weights import stream
from reeltune.weights.load import load_transformer
from reeltune.weights.quantize import check, quantize

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
LINEAR = "blocks.0.ffn.0"


@pytest.fixture
def weights():
    return tiny.original_weights()


def source(path, weights, dtype, **more):
    return tiny.write(path, {name: row.to(dtype) for name, row in weights.items()}, **more)


def left(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_value_is_the_references(tmp_path, weights, stored, dtype):
    weights["blocks.0.ffn.0.weight"][3] = 0
    weights["blocks.0.ffn.0.weight"][4] *= 1e-6
    weights["blocks.1.ffn.2.weight"] = weights["blocks.1.ffn.2.weight"] ** 5
    path = source(tmp_path / "x.safetensors", weights, stored)
    made = quantize(path, dtype=dtype)
    assert made.path == tmp_path / f"x_quanto_{dtype}_int8.safetensors"
    assert (made.bytes, made.sha256) == (made.path.stat().st_size, hashlib.sha256(made.path.read_bytes()).hexdigest())
    found, old = load_file(made.path), load_file(path)
    wanted, _ = tiny.quantized_file(old, WAN, DTYPES[dtype])
    assert found.keys() == wanted.keys()
    assert made.modules == 20
    for name, tensor in wanted.items():
        if stored == torch.float32 and any(part in name for part in ("time_embedding", "modulation", "norm3")):
            assert torch.equal(found[name], old[name])  # what diffusers keeps in fp32 is not rounded
            continue
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def test_the_header_tells_what_it_is_and_where_it_comes_from(tmp_path, weights):
    path = source(tmp_path / "x_bf16.safetensors", weights, torch.bfloat16,
                  metadata={"config": json.dumps({"num_attention_heads": 2}), "license": "mine"})  # fmt: skip
    made = quantize(path)
    header = read_header(made.path)
    identity = identify(header)
    assert (identity.quantization, identity.dtype, identity.role) == ("quanto_int8", "bf16", "model")
    told = dict(header.metadata)
    table = json.loads(base64.b64decode(told["quantization_map_base64"]))
    assert table[LINEAR] == {"weights": "qint8", "activations": "none"}
    assert json.loads(base64.b64decode(told["config_base64"])) == {"num_attention_heads": 2}
    assert (told["quantization_format"], told["reeltune_source"], told["license"]) == ("quanto", path.name, "mine")
    assert "config" not in told
    assert all(tensor.begin % 2 == 0 for tensor in header.tensors.values() if tensor.dtype == "BF16")


def test_it_loads_as_the_model_quantized_while_loading(tmp_path, weights):
    path = source(tmp_path / "x_bf16.safetensors", weights, torch.bfloat16)
    ours = tiny.forward(load_transformer(quantize(path).path, "bf16"))
    assert torch.equal(ours, tiny.forward(load_transformer(path, "bf16", quantize=True)))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_other_families_and_layouts_keep_their_names(tmp_path, name, layout):
    family, model_class, config, stored = CASES[name]
    state = random_model(model_class, config).state_dict()
    state = original_layout(state, family) if layout == "original" else state
    path = tiny.write(tmp_path / "x.safetensors", state, {"config": json.dumps(stored)})
    made = quantize(path)
    found = load_file(made.path)
    assert {key.removesuffix("._data") for key in found if not key.endswith(("_scale",))} == state.keys()
    assert made.modules > 4
    with pytest.raises(UnsupportedFormat, match="does not compute in fp16"):
        quantize(path, tmp_path / "y.safetensors", dtype="fp16")


def test_a_set_of_files_is_one_checkpoint(tmp_path, weights):
    names = sorted(weights)
    whole = source(tmp_path / "whole.safetensors", weights, torch.bfloat16)
    for number in range(3):
        part = {name: weights[name].to(torch.bfloat16).contiguous() for name in names[number::3]}
        save_file(part, tmp_path / f"x-0000{number + 1}-of-00003.safetensors", tiny.METADATA)
    made = quantize(tmp_path / "x-00002-of-00003.safetensors")
    assert made.path.name == "x_quanto_bf16_int8.safetensors"
    ours, theirs = load_file(made.path), load_file(quantize(whole).path)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    (tmp_path / "x-00003-of-00003.safetensors").unlink()
    with pytest.raises(HeaderError, match=r"the first is x-00003-of-00003"):
        quantize(tmp_path / "x-00001-of-00003.safetensors", tmp_path / "z.safetensors")


@pytest.mark.parametrize("to", DTYPES)
def test_it_only_converts(tmp_path, weights, to):
    path = source(tmp_path / "x_fp32.safetensors", weights, torch.float32)
    made = quantize(path, to=to)
    assert made.path.name == f"x_{to}.safetensors"
    found = load_file(made.path)
    assert found["blocks.0.ffn.0.weight"].dtype == DTYPES[to]
    assert torch.equal(found["blocks.0.ffn.0.weight"], weights["blocks.0.ffn.0.weight"].to(DTYPES[to]))
    assert found["time_embedding.0.weight"].dtype == torch.float32  # diffusers keeps it so
    assert "quantization_format" not in read_header(made.path).metadata


def test_what_a_mixed_file_keeps_in_fp32_stays(tmp_path, weights):
    state = {name: row if "norm" in name or "modulation" in name else row.to(torch.float16)
             for name, row in weights.items()}  # fmt: skip
    found = load_file(quantize(tiny.write(tmp_path / "x_mfp16.safetensors", state)).path)
    assert found["blocks.0.norm3.weight"].dtype == torch.float32
    assert found["patch_embedding.weight"].dtype == torch.float16


def fp8_file(path, weights, scaled, note=False):
    """ComfyUI's files: block linears in fp8, times a scale of their own; or cast plainly."""
    state, exact = {}, {}
    for name, row in weights.items():
        module = name.removesuffix(".weight")
        if not (name.endswith(".weight") and ".ffn." in name):
            state[name] = exact[name] = row.to(torch.bfloat16)
            continue
        scale = (row.abs().max() / 448).reshape(1) if scaled else torch.ones(1)
        state[name] = (row / scale).to(torch.float8_e4m3fn)
        exact[name] = state[name].float() * scale
        if scaled:
            state[f"{module}.{'weight_scale' if note else 'scale_weight'}"] = scale if note else scale.reshape(())
            state[f"{module}.{'input_scale' if note else 'scale_input'}"] = torch.tensor(0.5)
            if note:
                state[f"{module}.comfy_quant"] = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    if scaled and not note:
        state["scaled_fp8"] = torch.zeros(2).to(torch.float8_e4m3fn)
    return tiny.write(path, state), exact


@pytest.mark.parametrize(("scaled", "note"), [(False, False), (True, False), (True, True)])
def test_fp8_is_read_with_its_scales(tmp_path, weights, scaled, note):
    name = "x_fp8_e4m3fn_scaled.safetensors" if scaled else "x_fp8_e4m3fn.safetensors"
    path, exact = fp8_file(tmp_path / name, weights, scaled, note)
    plain = tiny.write(tmp_path / "exact.safetensors", exact)
    made = quantize(path)
    assert made.path.name == "x_quanto_bf16_int8.safetensors"
    ours, theirs = load_file(made.path), load_file(quantize(plain).path)
    assert all(torch.equal(ours[name], theirs[name].to(ours[name].dtype)) for name in ours)
    for options in ({}, {"quantize": True}):
        ours, theirs = (tiny.forward(load_transformer(file, "bf16", **options)) for file in (path, plain))
        assert torch.equal(ours, theirs)
    converted = load_file(quantize(path, to="fp16").path)
    assert torch.equal(converted["blocks.0.ffn.0.weight"], exact["blocks.0.ffn.0.weight"].to(torch.float16))
    assert converted.keys() == exact.keys()


def test_bad_numbers_are_refused_by_name(tmp_path, weights):
    for name in ("blocks.1.ffn.0.weight", "head.head.bias"):
        state = {**weights, name: weights[name].clone()}
        state[name].view(-1)[5] = float("nan")
        with pytest.raises(CheckpointError, match=f"{name} holds NaN"):
            quantize(source(tmp_path / "x.safetensors", state, torch.bfloat16))
    state = {**weights, "head.head.bias": weights["head.head.bias"] + 1e6}
    with pytest.raises(CheckpointError, match=r"head\.head\.bias is too large for fp16"):
        quantize(source(tmp_path / "x.safetensors", state, torch.bfloat16), dtype="fp16")
    assert left(tmp_path) == ["x.safetensors"]


def test_what_can_not_be_quantized_is_refused_with_the_reason(tmp_path, weights):
    path = source(tmp_path / "x.safetensors", weights, torch.bfloat16)
    made = quantize(path)
    with pytest.raises(CheckpointError, match="exists already"):
        quantize(path)
    with pytest.raises(UnsupportedFormat, match="quantized already"):
        quantize(made.path)
    with pytest.raises(UnsupportedFormat, match="no known model family"):
        quantize(tiny.write(tmp_path / "y.safetensors", {"something": torch.zeros(2)}))
    (tmp_path / "z.safetensors").write_bytes(b"PK\x03\x04" + b"x" * 200)
    with pytest.raises(UnsupportedFormat, match="pickle"):
        quantize(tmp_path / "z.safetensors")
    del weights["head.head.bias"]
    with pytest.raises(TensorMismatch, match=r"1 missing \(proj_out\.bias\)"):
        quantize(source(tmp_path / "cut.safetensors", weights, torch.bfloat16))
    with pytest.raises(CheckpointError, match="Invalid value 'int4' for to"):
        quantize(path, to="int4")


def test_progress_and_cancel(tmp_path, weights, monkeypatch):
    monkeypatch.setattr(stream, "READ_BYTES", 4096)
    path = source(tmp_path / "x.safetensors", weights, torch.bfloat16)
    events = []
    quantize(path, tmp_path / "a.safetensors", listener=events.append)
    for stage in ("quantize", "verify"):
        rows = [row for row in events if isinstance(row, Progress) and row.stage == stage]
        assert rows[-1].done == rows[-1].total
        assert all(one.done <= two.done for one, two in pairwise(rows))
    cancel = CancelToken()
    with pytest.raises(Cancelled):
        quantize(path, tmp_path / "b.safetensors", listener=lambda event: cancel.cancel(), cancel=cancel)
    assert left(tmp_path) == ["a.safetensors", "x.safetensors"]


def test_what_the_disk_damages_is_not_renamed(tmp_path, weights, monkeypatch):
    write_piece = stream.write_piece

    def damaging(buffers, piece):
        write_piece(buffers, piece)
        if piece.task.source.name == "blocks.1.ffn.0.weight":
            with buffers.output.open("r+b") as file:
                file.seek(piece.task.outputs[0].begin + 7)
                file.write(b"\x55")

    monkeypatch.setattr("reeltune.weights.quantize.write_piece", damaging)
    path = source(tmp_path / "x.safetensors", weights, torch.bfloat16)
    with pytest.raises(CheckpointError, match=r"blocks\.1\.ffn\.0\.weight\._data was not written"):
        quantize(path)
    assert left(tmp_path) == ["x.safetensors"]


def test_a_file_that_is_there_is_held_against_its_source(tmp_path, weights):
    path = source(tmp_path / "x.safetensors", weights, torch.bfloat16)
    made = quantize(path).path
    check(path, made, dtype="bf16")
    with pytest.raises(CheckpointError, match="is not what quantizing"):
        check(path, made, dtype="fp16")
    other = source(tmp_path / "other.safetensors", tiny.original_weights(5), torch.bfloat16)
    with pytest.raises(CheckpointError, match="was not written as it should be"):
        check(other, made, dtype="bf16")


def test_a_full_disk_leaves_everything_as_it_was(tmp_path, weights, monkeypatch):
    path = source(tmp_path / "x.safetensors", weights, torch.bfloat16)
    monkeypatch.setattr("reeltune.weights.quantize.free_disk", lambda folder: 10)
    with pytest.raises(NotEnoughDisk, match="10 bytes free"):
        quantize(path)
    monkeypatch.undo()
    calls = []

    def full(buffers, tensor, first, values):
        calls.append(tensor)
        if len(calls) > 5:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(stream.Buffers, "write", full)
    with pytest.raises(NotEnoughDisk, match="is full"):
        quantize(path)
    assert left(tmp_path) == ["x.safetensors"]


KILLED = """
import sys, time
from pathlib import Path
from reeltune.weights import stream
from reeltune.weights.quantize import quantize
stream._READ = 4096
print("ready", flush=True)
quantize(sys.argv[1], sys.argv[2], overwrite=True, listener=lambda event: time.sleep(0.002))
print("done", flush=True)
"""


def test_kill_minus_nine_leaves_source_and_earlier_output(tmp_path, weights):
    """Killed at moments spread over reading, writing, verifying and renaming; what is left is swept up next time."""
    path = source(tmp_path / "x.safetensors", weights, torch.bfloat16)
    output = quantize(path).path
    before = {file: file.read_bytes() for file in (path, output)}
    rng, finished = random.Random(3), 0
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path), str(output)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline().strip() == "ready"
        time.sleep(rng.uniform(0, 0.8))
        process.kill()
        finished += process.stdout.read().strip() == "done"
        process.wait()
        process.stdout.close()
        assert {file: file.read_bytes() for file in before} == before
    quantize(path, overwrite=True)
    assert left(tmp_path) == [path.name, output.name]
    assert output.read_bytes() == before[output]


def test_what_the_header_said_of_the_source_is_not_said_of_the_new_file(tmp_path, weights):
    told = {"reeltune_source_sha256": "0" * 64, "_quantization_metadata": "{}", "modelspec.hash_sha256": "1",
            "reeltune_loras": '[["old.safetensors", 1.0]]'}  # fmt: skip
    path = tmp_path / "x.safetensors"
    state = {name: row.to(torch.bfloat16) for name, row in weights.items()}
    tiny.write(path, state, tiny.METADATA | told)
    found = dict(read_header(quantize(path).path).metadata)
    assert not {"reeltune_source_sha256", "_quantization_metadata", "modelspec.hash_sha256"} & found.keys()
    assert json.loads(found["reeltune_loras"]) == [["old.safetensors", 1.0]]


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.uint16])
def test_parameters_that_are_no_floats_are_refused(tmp_path, weights, dtype):
    state = {**weights, "blocks.0.ffn.0.bias": torch.zeros(64, dtype=dtype)}
    with pytest.raises(UnsupportedFormat, match=r"blocks\.0\.ffn\.0\.bias is"):
        quantize(tiny.write(tmp_path / "x.safetensors", state))


FP8_DAMAGE = {
    "one scale": ("x_fp8_scaled.safetensors", lambda state: state.pop("blocks.1.ffn.0.scale_weight"), r"blocks\.1\.ffn\.0\.scale_weight"),
    "all scales": ("x_fp8_scaled.safetensors", lambda state: [state.pop(name) for name in list(state) if "scale" in name], "says that it is scaled, and it contains no scales"),
    "all but the mark": ("x_fp8.safetensors", lambda state: [state.pop(name) for name in list(state) if ".scale" in name], "scale_weight"),
    "all, and the name": ("x_fp8.safetensors", lambda state: [state.pop(name) for name in list(state) if "scale" in name], "its scale is missing"),
}  # fmt: skip


@pytest.mark.parametrize("damage", FP8_DAMAGE)
@pytest.mark.parametrize("use", ["load", "quantize"])
def test_scaled_fp8_without_its_scales_is_refused(tmp_path, weights, damage, use):
    """The stored numbers are up to 448: taken for weights, they make noise."""
    name, change, words = FP8_DAMAGE[damage]
    path, _ = fp8_file(tmp_path / "whole.safetensors", weights, scaled=True)
    state = load_file(path)
    change(state)
    path = tiny.write(tmp_path / name, state)
    with pytest.raises(CheckpointError, match=words):
        load_transformer(path, "bf16") if use == "load" else quantize(path, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_other_fp8_notes_are_refused_for_loading_too(tmp_path, weights):
    path, _ = fp8_file(tmp_path / "x_fp8.safetensors", weights, scaled=True, note=True)
    state = load_file(path)
    name = next(key for key in state if key.endswith(".comfy_quant"))
    state[name] = torch.tensor(list(b'{"format": "float8_e4m3fn", "convrot": true}'), dtype=torch.uint8)
    path = tiny.write(tmp_path / "y_fp8.safetensors", state)
    for work in (quantize, lambda file: load_transformer(file, "bf16")):
        with pytest.raises(UnsupportedFormat, match="float8_e4m3fn and rotated"):
            work(path)


def test_linears_never_stay_in_fp32(tmp_path, weights):
    state = {name: row if name == "blocks.0.ffn.0.weight" else row.to(torch.bfloat16) for name, row in weights.items()}
    found = load_file(quantize(tiny.write(tmp_path / "x.safetensors", state), to="bf16").path)
    assert found["blocks.0.ffn.0.weight"].dtype == torch.bfloat16
    double = {name: row.double() for name, row in weights.items()}
    found = load_file(quantize(tiny.write(tmp_path / "d.safetensors", double), to="fp16").path)
    assert found["blocks.0.ffn.0.weight"].dtype == torch.float16


def test_threads_that_come_later_have_all_cores(tmp_path, weights):
    from concurrent.futures import ThreadPoolExecutor

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        quantize(source(tmp_path / "x.safetensors", weights, torch.bfloat16))
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(before)


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path, weights):
    path, out = source(tmp_path / "x.safetensors", weights, torch.bfloat16), tmp_path / "out.safetensors"
    with pytest.raises(CheckpointError, match="exists already"):
        quantize(path, out, listener=lambda event: out.write_text("mine"))
    assert out.read_text() == "mine"
    with pytest.raises(CheckpointError, match="doesn't end in"):
        quantize(path, tmp_path / "out.bin")
    link = tmp_path / "link.safetensors"
    link.symlink_to(path)
    with pytest.raises(CheckpointError, match="is the file that is read"):
        quantize(path, link, overwrite=True)
