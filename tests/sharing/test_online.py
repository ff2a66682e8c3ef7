"""`check --online` on 30 definitions with planted faults, served locally: every fault is named, and nothing else is."""

import json
import threading

import pytest

from conftest import head_of
from hub import sha256
from reeltune import load_catalog
from reeltune.definitions.locks import Lock, LockedFile, lock_path, write_lock
from reeltune.sharing.online import online_problems
from sharing_roots import NANO, command

GOOD = (NANO / "nano_t2v_bf16.safetensors").read_bytes()
INT8 = (NANO / "nano_t2v_quanto_bf16_int8.safetensors").read_bytes()
I2V = (NANO / "nano_i2v_bf16.safetensors").read_bytes()
MODULE = (NANO / "nano_vace_module_bf16.safetensors").read_bytes()
LORA = (NANO / "nano_turbo_lora_r32_bf16.safetensors").read_bytes()
PAGE = b"<!doctype html><html><body>Please log in</body></html>"
PARTS = {
    f"{path.parent.name}/{path.name}": path.read_bytes()
    for path in (NANO / "reeltune--nano").rglob("*")
    if path.is_file()
}


class Planted:
    """Definitions in a root and their files on two servers; `expect(id, words)` notes what must be named."""

    def __init__(self, root, server, hub, headers):
        self.root, self.server, self.hub = root, server, hub
        self.expected = {}
        hub.create(
            "me/x", {"good_bf16.safetensors": GOOD, "x_quanto_bf16_int8.safetensors": INT8, "lora.safetensors": LORA}
        )
        hub.create("me/parts", PARTS)
        hub.create("me/few", {"vae/config.json": b"{}"})
        hub.create("me/private", {"x_bf16.safetensors": GOOD}, private=True).writers = {"somebody"}
        self.base = "https://huggingface.co/me/x/resolve/main"
        start, size = head_of(headers["wan_t2v_14B"])
        self.big = start, size

    def serve(self, path, content, **options):
        self.server.files[path] = content
        for name, value in options.items():
            getattr(self.server, name)[path] = value
        return self.server.url + path

    def define(self, id, urls, *words, settings=None, **model):
        urls = urls if isinstance(urls, list) else [urls]
        value = {
            "model": {"name": id, "architecture": "t2v_1.3B", "components": "reeltune/nano", "URLs": urls, **model}
        }
        path = self.root / "finetunes" / f"{id}.json"
        path.write_text(json.dumps({**value, **(settings or {})}))
        self.expected[id] = list(words)
        return path


def plant(planted):
    """30 definitions: some sound, though unusual, the others with a fault each."""
    serve, define, base, server = planted.serve, planted.define, planted.base, planted.server
    sound = serve("/sound_bf16.safetensors", GOOD)
    # --- sound, though unusual
    define("sound_hub", [f"{base}/good_bf16.safetensors", f"{base}/x_quanto_bf16_int8.safetensors?download=true"])
    define("sound_blob", "https://huggingface.co/me/x/blob/main/good_bf16.safetensors")
    define("sound_plain", serve("/noranges_bf16.safetensors", GOOD, types="binary/x"))
    server.rangeless.add("/noranges_bf16.safetensors")
    server.redirects |= {"/one": "/two", "/two": "/three_bf16.safetensors"}
    serve("/three_bf16.safetensors", GOOD)
    define("sound_redirects", f"{server.url}/one")
    define("sound_no_token", serve("/Model%20Final.SafeTensors", GOOD))
    define("sound_sha256", f"{base}/good_bf16.safetensors", sha256={"good_bf16.safetensors": sha256(GOOD).upper()})
    define(
        "sound_lora",
        sound,
        loras=[f"{base}/lora.safetensors"],
        settings={"activated_loras": [f"{base}/lora.safetensors"]},
    )
    define("sound_module", sound, architecture="vace_1.3B", modules=[[serve("/module_bf16.safetensors", MODULE)]])
    define("sound_reference", "nano_t2v")
    (planted.root / "finetunes" / "sound_reference.json").write_text(
        json.dumps({"model": {"name": "x", "architecture": "t2v_1.3B", "URLs": "nano_t2v", "components": "me/parts"}})
    )
    define("sound_preload", sound, preload_URLs=[serve("/any.bin", b"any bytes")])
    # --- faults
    define("dead", f"{server.url}/gone_bf16.safetensors", "status 404 (file not found)")
    define("dead_hub", f"{base}/gone_bf16.safetensors", "status 404")
    define("one_of_two", [sound, f"{server.url}/gone2_bf16.safetensors"], "URLs[1]", "gone2_bf16.safetensors", "404")
    define("private", "https://huggingface.co/me/private/resolve/main/x_bf16.safetensors", "status 40")
    serve("/gated_bf16.safetensors", GOOD)
    server.faults["/gated_bf16.safetensors"] = answer(403, b'{"error": "Access to model me/x is restricted"}')
    define("gated", f"{server.url}/gated_bf16.safetensors", "status 403 (access denied)", "restricted")
    define("page", serve("/page_bf16.safetensors", PAGE, types="text/html"), "serves a page (text/html)")
    define("page_in_disguise", serve("/disguise_bf16.safetensors", PAGE), "serves a web page")
    server.redirects |= {"/round_bf16.safetensors": "/and", "/and": "/round_bf16.safetensors"}
    define("circle", f"{server.url}/round_bf16.safetensors", "too many redirects")
    define("unreachable", "http://127.0.0.1:9/x_bf16.safetensors", "can't be reached: the connection was refused")
    define("truncated", serve("/short_bf16.safetensors", GOOD[:-1000]), "bytes")
    define("no_header", serve("/noise_bf16.safetensors", b"\x00" * 4000), "header")
    define("other_model", serve("/i2v_bf16.safetensors", I2V), "its header is that of")
    define("whole_as_module", sound, "it is a whole model, not a module", architecture="vace_1.3B", modules=[[sound]])
    define("lie_dtype", serve("/lie_fp16.safetensors", GOOD), "The name says fp16, the header bf16")
    define("lie_int8", serve("/lie_quanto_bf16_int8.safetensors", GOOD), "The name says", "int8")
    start, size = planted.big
    serve("/big_bf16.safetensors", start)
    server.faults["/big_bf16.safetensors"] = hole(start, size)
    define("other_size", f"{server.url}/big_bf16.safetensors", "its header looks like t2v or t2v_2_2")
    define(
        "wrong_sha256",
        f"{base}/good_bf16.safetensors",
        "the definition lists",
        sha256={"good_bf16.safetensors": "0" * 64},
    )
    path = define("wrong_size", f"{base}/x_quanto_bf16_int8.safetensors", "the lock lists 7", "the definition lists")
    entry = LockedFile(f"{base}/x_quanto_bf16_int8.safetensors", 7, "1" * 64)
    write_lock(lock_path(path), Lock("wrong_size", {entry.source: entry}))
    define("no_lora", sound, "loras[0]", "/i2v_bf16.safetensors", loras=[f"{server.url}/i2v_bf16.safetensors"])
    define("components", sound, "model.components", "me/few", components="me/few")


def answer(status, body):
    def fault(handler, content):
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
        return True

    return fault


def hole(start, size):
    """A server of a file whose data nobody reads."""

    def fault(handler, content):
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes 0-{len(start) - 1}/{size}")
        handler.send_header("Content-Length", str(len(start)))
        handler.end_headers()
        handler.wfile.write(start)
        return True

    return fault


@pytest.fixture
def planted(root, server, hub, headers):
    made = Planted(root, server, hub, headers)
    plant(made)
    return made


def checked(root):
    catalog = load_catalog(root)
    definitions = [(catalog[id], path) for id in catalog for path in catalog.files_of(id) if path.parent.parent == root]
    return definitions, online_problems(definitions, {})


def test_every_fault_is_named_and_nothing_else(planted, root):
    assert len(planted.expected) == 30
    definitions, problems = checked(root)
    assert len(definitions) == 30
    found = {}
    for problem in problems:
        found.setdefault(problem.file.rpartition("/")[2].removesuffix(".json"), []).append(str(problem))
    for id, words in planted.expected.items():
        text = "\n".join(found.get(id, []))
        assert bool(words) == bool(text), (id, text)
        for word in words:
            assert word in text, (id, text)
    counts = {id: len(lines) for id, lines in found.items()}
    assert {id: count for id, count in counts.items() if count > 1} == {"wrong_size": 2}


def test_the_command_names_them_too(planted, root):
    answer = command(root, "check", "--online", "--json")
    assert answer.returncode == 1
    problems = json.loads(answer.stdout)
    assert {"dead", "circle", "page", "gated"} <= {problem["file"].rpartition("/")[2][:-5] for problem in problems}
    fine = command(root, "check", "--online", "finetunes/sound_hub.json")
    assert fine.returncode == 0, fine.stdout


def test_each_url_is_asked_once(planted, root, server):
    checked(root)
    asked = [path for path, _ in server.requests if path == "/sound_bf16.safetensors"]
    assert len(asked) == 2  # its first bytes, and its header


def test_the_time_is_limited(root, server, define):
    ended = threading.Event()

    def never(handler, content):
        ended.wait(600)
        return False

    for number in range(4):
        path = f"/{number}_bf16.safetensors"
        server.files[path] = GOOD
        server.faults[path] = never
        define(f"slow{number}", {"architecture": "t2v_1.3B", "URLs": [server.url + path]})
    catalog = load_catalog(root)
    definitions = [(catalog[f"slow{number}"], root / "finetunes" / f"slow{number}.json") for number in range(4)]
    problems = online_problems(definitions, {}, seconds=1)
    ended.set()
    assert len(problems) == 4


def test_tokens_in_urls_and_swapped_transformers(root, server, define):
    server.files["/a_high_noise_bf16.safetensors"] = server.files["/a_low_noise_bf16.safetensors"] = GOOD
    urls = [f"{server.url}/a_{noise}_noise_bf16.safetensors" for noise in ("low", "high")]
    model = {"architecture": "t2v_2_2", "URLs": [urls[0] + "?token=s3cret"], "URLs2": [urls[1]]}
    path = define("swapped", model)
    catalog = load_catalog(root)
    texts = [str(problem) for problem in online_problems([(catalog["swapped"], path)], {})]
    assert any("contains a token" in text for text in texts)
    assert any("probably swapped" in text for text in texts)
    assert "s3cret" not in "".join(texts)


def test_offline(root, monkeypatch):
    monkeypatch.setenv("REELTUNE_OFFLINE", "1")
    answer = command(root, "check", "--online")
    assert answer.returncode == 1
    assert "offline" in answer.stderr
