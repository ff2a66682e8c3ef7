import json

from conftest import safetensors_bytes
from reeltune import Preferences, explain, load_catalog
from reeltune.machine import Machine

TENSORS = {
    "head.modulation": ("F16", [1, 2, 4]), "patch_embedding.weight": ("F16", [4, 36, 1, 2, 2]),
    "head.head.weight": ("F16", [64, 4]), "text_embedding.0.weight": ("F16", [4, 8]),
    "time_embedding.0.weight": ("F16", [4, 8]), "blocks.0.ffn.0.weight": ("F16", [8, 4]),
}  # fmt: skip
MACHINE = Machine(2**34, 2**33)


def test_plan_as_json(root):
    answer = explain(load_catalog(root)["t2v"], machine=MACHINE).as_json()
    json.dumps(answer)
    choice = answer["choices"]["transformer"]
    assert choice["url"].endswith("wan2.1_text2video_14B_quanto_mbf16_int8.safetensors")
    assert (choice["dtype"], choice["quantize_on_load"]) == ("bf16", False)
    assert choice["file"] == str(root / "ckpts" / "wan2.1_text2video_14B_quanto_mbf16_int8.safetensors")
    assert [rejection["reason"] for rejection in answer["rejected"]] == [
        "quanto int8 is preferred",
        "bf16 is preferred",
    ]
    assert all(not download["present"] and download["bytes"] is None for download in answer["downloads"])
    assert {"slot", "url", "reason"} == set(answer["rejected"][0])
    assert len(answer["downloads"]) == 4


def test_nano_needs_no_download(root):
    plan = explain(load_catalog(root)["nano_t2v"], machine=MACHINE)
    assert not plan.missing
    assert all(item.bytes for item in plan.items)
    assert not plan.notices


def test_flags_and_stored_preferences(root):
    catalog = load_catalog(root)
    (root / "reeltune.json").write_text('{"quantization": "bf16"}')
    assert "bf16.saf" in explain(catalog["nano_t2v"], machine=MACHINE).selection.choices["transformer"].version.url
    chosen = explain(catalog["nano_t2v"], Preferences(), machine=MACHINE).selection.choices["transformer"]
    assert "int8" in chosen.version.url


def test_online_headers_beat_names(server, root, define):
    server.files["/x_bf16.safetensors"] = safetensors_bytes(TENSORS)
    server.files["/y_bf16.safetensors"] = safetensors_bytes(
        TENSORS | {"patch_embedding.weight": ("F16", [4, 16, 1, 2, 2])}
    )
    define("mine", {"architecture": "t2v", "URLs": [f"{server.url}/{name}_bf16.safetensors" for name in "xy"]})
    definition = load_catalog(root)["mine"]
    assert (
        explain(definition, machine=MACHINE).selection.choices["transformer"].version.url.endswith("x_bf16.safetensors")
    )
    assert not server.requests
    plan = explain(definition, machine=MACHINE, online=True)
    assert plan.selection.choices["transformer"].version.url.endswith("y_bf16.safetensors")
    assert "36 input channels" in plan.selection.rejected[0].reason
    assert plan.items[0].bytes == len(server.files["/y_bf16.safetensors"])


def test_online_an_unreachable_url_is_a_notice_and_a_broken_file_is_rejected(server, root, define):
    server.files["/good_bf16.safetensors"] = safetensors_bytes(
        TENSORS | {"patch_embedding.weight": ("BF16", [4, 16, 1, 2, 2])}
    )
    server.files["/page_bf16.safetensors"] = b"<html>log in</html>" + bytes(100)
    urls = [f"{server.url}/{name}_bf16.safetensors" for name in ("page", "gone", "good")]
    define("mine", {"architecture": "t2v", "URLs": urls})
    plan = explain(load_catalog(root)["mine"], machine=MACHINE, online=True)
    assert "web page" in plan.selection.rejected[0].reason
    assert "file not found" in plan.selection.rejected[1].reason
    server.faults["/good_bf16.safetensors"] = lambda handler, body: handler.send_error(503) or True
    plan = explain(load_catalog(root)["mine"], machine=MACHINE, online=True)
    assert any("good_bf16.safetensors: its header could not be read" in notice for notice in plan.notices)


def test_truncated_files_are_reported_and_downloaded_again(root, define):
    define("mine", {"architecture": "t2v", "URLs": ["https://h/x_bf16.safetensors"]})
    (root / "ckpts").mkdir()
    (root / "ckpts" / "x_bf16.safetensors").write_bytes(safetensors_bytes(TENSORS)[:-3])
    plan = explain(load_catalog(root)["mine"], machine=MACHINE)
    assert any("truncated" in notice for notice in plan.notices)
    assert not plan.items[0].present


def test_preloaded_files_are_planned(root, define):
    urls = ["https://h/one.json", "https://h/two.safetensors"]
    define("mine", {"architecture": "t2v", "URLs": ["https://h/x_bf16.safetensors"], "preload_URLs": urls})
    plan = explain(load_catalog(root)["mine"], machine=MACHINE)
    assert [item.url for item in plan.items if item.subject == "preload"] == urls
