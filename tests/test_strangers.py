"""What strangers' files did to the program once, and must never do again."""

import json

import pytest

from conftest import safetensors_bytes
from reeltune import explain, inspect, load_catalog
from reeltune.errors import HeaderError, PreferencesError, SettingsError
from reeltune.machine import Machine
from reeltune.preferences import Preferences
from reeltune.settings import parse_assignments

MACHINE = Machine(2**34, 2**33)
T2V = {
    "head.modulation": ("BF16", [1, 2, 4]), "patch_embedding.weight": ("BF16", [4, 16, 1, 2, 2]),
    "head.head.weight": ("BF16", [64, 4]), "text_embedding.0.weight": ("BF16", [4, 8]),
    "time_embedding.0.weight": ("BF16", [4, 8]), "blocks.0.ffn.0.weight": ("BF16", [8, 4]),
}  # fmt: skip
I2V = T2V | {"patch_embedding.weight": ("BF16", [4, 36, 1, 2, 2])}


@pytest.mark.parametrize("name", ["diffusion_pytorch_model", "model"])
def test_a_components_file_is_no_transformer(root, define, name):
    """The package's own components bear the names that many transformers have."""
    define("mine", {"architecture": "t2v", "URLs": [f"https://h/{name}.safetensors"]})
    assert not explain(load_catalog(root)["mine"], machine=MACHINE).selection.choices["transformer"].present


def test_a_wrong_file_of_the_name_does_not_hide_the_right_one(root, define):
    define("mine", {"architecture": "t2v", "URLs": ["https://h/x_bf16.safetensors"]})
    for folder, tensors in (("a", I2V), ("b", T2V)):
        (root / "ckpts" / folder).mkdir(parents=True)
        (root / "ckpts" / folder / "x_bf16.safetensors").write_bytes(safetensors_bytes(tensors))
    plan = explain(load_catalog(root)["mine"], machine=MACHINE)
    assert plan.items[0].path.parent.name == "b"
    assert any("36 input channels" in notice for notice in plan.notices)


def test_folders_behind_links_are_looked_through(root, define, tmp_path):
    define("mine", {"architecture": "t2v", "URLs": ["https://h/x_bf16.safetensors"]})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x_bf16.safetensors").write_bytes(safetensors_bytes(T2V))
    (root / "ckpts").mkdir()
    (root / "ckpts" / "link").symlink_to(tmp_path / "elsewhere")
    (root / "ckpts" / "circle").symlink_to(root / "ckpts")
    assert explain(load_catalog(root)["mine"], machine=MACHINE).items[0].present


def test_a_second_transformer_is_not_left_out_in_silence(root, define):
    both = {"URLs": ["https://h/a.safetensors"], "URLs2": ["https://h/b.safetensors"]}
    define("mine", {"architecture": "hunyuan", **both})
    assert "URLs2" in load_catalog(root)["mine"].reason
    define("mine", {"architecture": "t2v", **both})
    assert load_catalog(root)["mine"].architecture.id == "t2v_2_2"


def test_built_ins_overridden_to_name_each_other(root, define):
    define("t2v", {"architecture": "i2v"})
    define("i2v", {"architecture": "t2v"})
    assert load_catalog(root)["t2v"].settings is not None


def test_null_in_an_override_leaves_the_built_in_alone(root, define):
    define("t2v", {"URLs": None, "name": None, "auto_quantize": True})
    definition = load_catalog(root)["t2v"]
    assert len(definition.slots["transformer"]) == 3
    assert definition.name != "t2v"


def test_what_can_not_be_resolved_is_not_called_runnable(root, define):
    define("a", {"architecture": "t2v", "URLs": "b"})
    define("b", {"architecture": "t2v", "URLs": "a"})
    rows = {row.id: row for row in load_catalog(root).summaries()}
    assert not rows["a"].runnable
    assert "circular" in rows["a"].reason


@pytest.mark.parametrize(
    "text",
    ['{"model": {}, "seed": ' + "9" * 6000 + "}",
     '{"model": {"architecture": "\\u001b[31m", "URLs": ["x"]}}',
     '{"model": {"architecture": "t2v", "URLs": ["x", {}]}}'],
)  # fmt: skip
def test_definitions_that_are_set_aside(root, text):
    (root / "finetunes" / "odd.json").write_text(text)
    catalog = load_catalog(root)
    assert [path.name for path in catalog.broken] == ["odd.json"]
    assert len(catalog.summaries()) > 10


@pytest.mark.parametrize("place", ["URLs", "components"])
def test_homes_that_do_not_exist(root, define, place):
    model = {"architecture": "t2v", "URLs": ["https://h/x.safetensors", "~nobody-here/x.safetensors"]}
    define("mine", model | ({"components": "~nobody-here/x"} if place == "components" else {}))
    assert explain(load_catalog(root)["mine"], Preferences(model_folders=("~nobody-here",)), machine=MACHINE)


@pytest.mark.parametrize("dtype", [["BF16"], {}, 5, None])
def test_forged_dtypes(tmp_path, dtype):
    raw = json.dumps({"w": {"dtype": dtype, "shape": [1], "data_offsets": [0, 2]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + b"00")
    with pytest.raises(HeaderError):
        inspect(tmp_path / "x.safetensors")


def test_forged_block_numbers_and_odd_metadata(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes(T2V, {"config": "not json"}))
    assert inspect(path).identity.config["num_layers"] == 1
    path.write_bytes(safetensors_bytes(T2V | {"blocks.99999999.ffn.0.weight": ("BF16", [4, 4])}))
    assert inspect(path).identity.config is None


def test_settings_no_machine_can_do():
    for pair in ("resolution=99999x99999", "repeat_generation=1000000000", "num_inference_steps=1000000"):
        with pytest.raises(SettingsError):
            parse_assignments([pair])
    assert parse_assignments(["activated_loras=[]"]) == {"activated_loras": []}


@pytest.mark.parametrize("device", ["banana", "cuda:-1", "cuda:x"])
def test_devices_that_are_none(device):
    with pytest.raises(PreferencesError, match="Invalid value"):
        Preferences(device=device)


def test_odd_numbers_from_servers(server):
    from reeltune.errors import FetchError

    server.files["/x.safetensors"] = safetensors_bytes(T2V)

    def lie(handler, body):
        handler.send_response(206)
        handler.send_header("Content-Range", "bytes 0-9/" + "9" * 5000)
        handler.send_header("Content-Length", "10")
        handler.end_headers()
        handler.wfile.write(body[:10])
        return True

    server.faults["/x.safetensors"] = lie
    with pytest.raises(FetchError):
        inspect(server.url + "/x.safetensors")
