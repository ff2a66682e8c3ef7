"""`add`: from a header to a right definition, without fetching the file."""

import json
import re

import pytest

from conftest import head_of, safetensors_bytes
from reeltune import explain, load_catalog
from reeltune.errors import AmbiguousArchitecture, DefinitionError, UnsupportedFormat
from reeltune.library.adding import add, inspect_source
from reeltune.machine import Machine

MACHINE = Machine(2**34, 2**33)


def serve_sparse(server, path, start, size):
    """Serve ranges of a file of `start` and zeros that exists nowhere."""

    def answer(handler, _):
        wanted = re.match(r"bytes=(\d+)-(\d+)", handler.headers["Range"])
        first, last = int(wanted[1]), min(int(wanted[2]), size - 1)
        body = start[first : last + 1].ljust(last + 1 - first, b"\0")
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
        server.sent += len(body)
        return True

    server.files[path], server.faults[path] = b"", answer


def test_add_reads_only_the_header_of_a_28_gb_file(server, root, headers):
    name = "Wan14BI2VFusioniX_bf16.safetensors"
    start, size = head_of(headers["wan_i2v_14B"])
    assert size > 28e9
    serve_sparse(server, f"/a/{name}", start, size)
    catalog = load_catalog(root)
    inspected = inspect_source(catalog, f"{server.url}/a/{name}?token=secret")
    path = add(catalog, inspected, architecture="i2v", name="Fusion X")
    assert server.sent < 1_000_000  # nothing else is downloaded
    assert path.name == "i2v_fusion_x.json"
    assert "secret" not in path.read_text(encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8"))["model"] == {
        "name": "Fusion X", "architecture": "i2v", "description": "", "URLs": [f"{server.url}/a/{name}"],
        "auto_quantize": True,
    }  # fmt: skip
    definition = load_catalog(root)["i2v_fusion_x"]
    choice = explain(definition, online=True, machine=MACHINE).selection.choices["transformer"]
    assert (choice.facts.bytes, choice.dtype, choice.quantize_on_load) == (size, "bf16", True)


def test_add_refuses_ambiguous_and_contradicting_architectures(root, headers, tmp_path):
    start, size = head_of(headers["wan_t2v_14B"])
    file = tmp_path / "my_t2v_fp16.safetensors"
    file.write_bytes(start)
    with file.open("r+b") as sparse:
        sparse.truncate(size)
    catalog = load_catalog(root)
    inspected = inspect_source(catalog, str(file))
    with pytest.raises(AmbiguousArchitecture, match=r"t2v, t2v_2_2") as caught:
        add(catalog, inspected)
    assert caught.value.candidates == ("t2v", "t2v_2_2")
    with pytest.raises(DefinitionError, match="is not a i2v model"):
        add(catalog, inspected, architecture="i2v")
    with pytest.raises(DefinitionError, match="is not an architecture or a base model"):
        add(catalog, inspected, architecture="t2w")
    assert not list((root / "finetunes").iterdir())
    vace = add(catalog, inspected, architecture="vace_14B", id="mine")
    model = json.loads(vace.read_text(encoding="utf-8"))["model"]
    assert (vace.stem, model["modules"], model["URLs"]) == ("vace_14B_mine", ["vace_14B"], [str(file)])
    assert "modules[0]" in load_catalog(root)["vace_14B_mine"].slots
    with pytest.raises(DefinitionError, match="already"):
        add(load_catalog(root), inspected, architecture="vace_14B", id="vace_14B_mine")


def test_a_module_becomes_a_definition_over_the_base_models_weights(root, headers, tmp_path):
    start, size = head_of(headers["wan_vace_module_14B"])
    file = root / "ckpts" / "my_vace_bf16.safetensors"
    file.parent.mkdir()
    file.write_bytes(start)
    with file.open("r+b") as sparse:
        sparse.truncate(size)
    catalog = load_catalog(root)
    path = add(catalog, inspect_source(catalog, str(file)), architecture="vace_14B")
    assert path.stem == "vace_14B_my_vace"
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    assert (model["URLs"], model["modules"]) == ("vace_14B", [["ckpts/my_vace_bf16.safetensors"]])
    assert load_catalog(root)["vace_14B_my_vace"].slots["transformer"] == catalog["t2v"].slots["transformer"]


def test_add_refuses_files_that_are_not_models(root, tmp_path):
    file = tmp_path / "umt5.safetensors"
    file.write_bytes(safetensors_bytes({"encoder.block.0.weight": ("F32", [2])}))
    with pytest.raises(UnsupportedFormat, match="is not a model that reeltune knows"):
        inspect_source(load_catalog(root), str(file))
    part = tmp_path / "wan-00001-of-00006.safetensors"
    part.write_bytes(file.read_bytes())
    with pytest.raises(UnsupportedFormat, match="one part of a model"):
        inspect_source(load_catalog(root), str(part))
