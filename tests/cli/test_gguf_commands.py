"""The commands with GGUF files: inspect, add, check, explain, list and quantize treat them like safetensors files."""

import json
from pathlib import Path

import pytest
from test_cli import run

import gguf_files
import reeltune

__all__ = ["run"]

NANO = Path(reeltune.__file__).parent / "nano" / "nano_t2v_bf16.safetensors"


@pytest.fixture
def nano(root):
    """nano as a GGUF file in the root."""
    (root / "ckpts").mkdir()
    return gguf_files.convert(NANO, root / "ckpts" / "nano-Q8_0.gguf", "Q8_0")


def test_a_file_and_its_url_are_inspected(run, nano, server):
    server.files["/nano-Q8_0.gguf"] = nano.read_bytes()
    for source in (str(nano), f"{server.url}/nano-Q8_0.gguf"):
        code, out, _ = run("inspect", source)
        assert code == 0
        assert "t2v_1.3B" in out
        assert "q8_0" in out
        found = json.loads(run("inspect", source, "--json")[1])
        assert (found["format"], found["quantization"], found["layout"]) == ("gguf", "gguf", "original")
        assert "config" in found["metadata"]
        assert not found["notices"]
    missing, _, message = run("inspect", "gone.gguf")
    assert missing
    assert ".safetensors or .gguf" in message


def test_it_is_added_checked_listed_explained_and_quantized(run, nano, root):
    code, _, err = run("add", str(nano), "--architecture", "t2v_1.3B")
    assert code == 0, err
    model = json.loads((root / "finetunes" / "t2v_1.3B_nano.json").read_text())["model"]
    assert model == {
        "name": "nano", "architecture": "t2v_1.3B", "description": "", "URLs": ["ckpts/nano-Q8_0.gguf"],
    }  # fmt: skip
    assert run("check", str(root / "finetunes" / "t2v_1.3B_nano.json"))[0] == 0
    listed = {row["id"]: row for row in json.loads(run("list", "--json")[1])}
    assert listed["t2v_1.3B_nano"]["runnable"]
    _, out, _ = run("explain", "t2v_1.3B_nano")
    assert "GGUF, no usable int8 version is listed: quantized to int8 while loading" in out
    code, out, err = run("quantize", str(nano))
    assert code == 0, err
    assert "nano_quanto_bf16_int8.safetensors" in out
    code, _, _ = run("quantize", str(root / "ckpts" / "gone.gguf"))
    assert code


def test_types_that_are_not_decoded_are_named_by_all_of_them(run, define, root):
    define("mine", {"architecture": "t2v", "URLs": ["https://h/x-IQ3_XXS.gguf"]})
    words = "GGUF weights of the types IQ1 to IQ3"
    listed = {row["id"]: row for row in json.loads(run("list", "--json")[1])}
    assert words in listed["mine"]["reason"]
    assert words in "".join(run("explain", "mine")[1:])
    assert words in "".join(run("check", str(root / "finetunes" / "mine.json"))[1:])
    assert words in run("pull", "mine", "--weights-only")[2]
    path = root / "x-IQ3_XXS.gguf"
    path.write_bytes(gguf_files.File({"head.modulation": gguf_files.Entry("IQ3_XXS", (1, 2, 256))}).content())
    code, out, _ = run("inspect", str(path))
    assert (code, "iq3_xxs" in out, "gguf (IQ1 to IQ3 and others)" in out) == (0, True, True)
    assert "GGUF IQ1 to IQ3 weights" in run("quantize", str(path))[2]


def test_the_preferences_save_a_quantized_version(run, nano, define, root):
    define("mine", {"architecture": "t2v_1.3B", "URLs": ["ckpts/nano-Q8_0.gguf"]})
    code, _, err = run("quantize", "mine")
    assert code == 0, err
    assert (root / "ckpts" / "nano_quanto_bf16_int8.safetensors").is_file()
    model = json.loads((root / "finetunes" / "mine.json").read_text())["model"]
    assert model["URLs"] == ["ckpts/nano-Q8_0.gguf", "ckpts/nano_quanto_bf16_int8.safetensors"]
