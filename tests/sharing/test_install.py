"""`add` of shared definitions: shown, checked, asked about, and never over something else."""

import json
import zipfile

import pytest

from reeltune import explain, load_catalog, pull
from reeltune.errors import DefinitionError, FetchError, ReeltuneError
from reeltune.media.mp4 import read_frames
from reeltune.preferences import Preferences
from reeltune.sharing.incoming import is_definition_source, read_incoming
from reeltune.sharing.installing import describe, install
from reeltune.sharing.licenses import License
from reeltune.sharing.plan import PublishOptions
from reeltune.sharing.publishing import open_repository, publish
from sharing_roots import command, definition_of, glow

MODEL = {"name": "Shared", "architecture": "t2v_1.3B", "URLs": ["https://h.example/x_bf16.safetensors"]}


def shared(root, value, name="shared.json", **options):
    path = root / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    catalog = load_catalog(root)
    return describe(catalog, read_incoming(str(path), Preferences()), Preferences(), sizes=False, **options)


def frames_of(answer):
    assert answer.returncode == 0, answer.stderr
    return read_frames(__import__("pathlib").Path(answer.stdout.strip().splitlines()[-1]))


def test_the_published_model_on_another_machine_makes_the_same_frames(hub, root, tmp_path):
    glow(root)
    steps = ("a green square moves down on a black background", "--seed", "5", "--set", "num_inference_steps=3")
    own = frames_of(command(root, "generate", "glow", *steps))
    done = command(root, "publish", "glow", "--repo", "me/glow", "--public", "--license", "mit", "--yes")
    assert done.returncode == 0, done.stderr
    url = done.stdout.split("reeltune add ")[1].split()[0]
    other = tmp_path / "other"
    other.mkdir()
    added = command(other, "add", url, "--yes")
    assert added.returncode == 0, added.stderr
    assert "glow_bf16.safetensors" in added.stdout
    assert not (other / "ckpts").exists()  # nothing was downloaded yet
    theirs = frames_of(command(other, "generate", "glow", *steps))
    assert (theirs == own).all()
    again = frames_of(command(root, "generate", "glow", *steps))
    assert (again == own).all()
    assert (other / "ckpts" / "glow_quanto_bf16_int8.safetensors").exists()


def test_everything_is_shown_before_it_is_written(hub, root):
    hub.create("me/x", {"x_bf16.safetensors": b"0" * 3_000_000, "style.safetensors": b"1" * 5_000})
    base = "https://huggingface.co/me/x/resolve/main"
    model = MODEL | {"URLs": [f"{base}/x_bf16.safetensors"], "loras": [f"{base}/style.safetensors"], "license": "mit"}
    model["description"] = "Paints [bold]red[/bold]."
    path = root / "x.json"
    path.write_text(json.dumps({"model": model, "prompt": "a fox", "image_start": "/home/them/a.png", "sed": 3}))
    answer = command(root, "add", "x.json", stdin="n\n")
    assert answer.returncode == 1
    for words in ("Shared  (x)", "Paints [bold]red[/bold].", "license       mit", "3.0 MB", "5.0 KB", "prompt = a fox",
                  f"{base}/x_bf16.safetensors", "t2v_1.3B", "loras"):  # fmt: skip
        assert words in answer.stdout
    assert "image_start is left out" in answer.stderr
    assert "sed" in answer.stderr
    assert not (root / "finetunes" / "x.json").exists()
    assert command(root, "add", "x.json", stdin="y\n").returncode == 0
    assert "image_start" not in (root / "finetunes" / "x.json").read_text()
    assert [request for request in hub.requests if "Range" in request] == []


def test_no_overwrite_without_asking(root):
    (root / "x.json").write_text(json.dumps({"model": MODEL}))
    assert command(root, "add", "x.json", "--yes").returncode == 0
    own = root / "finetunes" / "x.json"
    own.write_text(own.read_text().replace("Shared", "Mine"))
    refused = command(root, "add", "x.json", "--yes")
    assert refused.returncode == 1
    assert "exists already" in refused.stderr
    assert "Mine" in own.read_text()
    assert command(root, "add", "x.json", "--yes", "--id", "y").returncode == 0
    assert (root / "finetunes" / "y.json").exists()
    assert command(root, "add", "x.json", "--yes", "--force").returncode == 0
    assert "Shared" in own.read_text()
    assert command(root, "add", "x.json", "--yes", "--architecture", "t2v").returncode == 1


def test_a_replaced_definition_is_checked_alone(root, define):
    define(
        "shared", {"architecture": "t2v", "URLs": ["https://h/mine.safetensors"], "URLs2": ["https://h/2.safetensors"]}
    )
    found = shared(root, {"model": MODEL})
    assert found.replaces == root / "finetunes" / "shared.json"
    assert list(found.definition.slots) == ["transformer"]
    with pytest.raises(DefinitionError, match="exists already"):
        install(load_catalog(root), found)


@pytest.mark.parametrize("id", ["t2v", "T2V", "nano_t2v"])
def test_built_in_definitions_are_never_replaced(root, id):
    with pytest.raises(DefinitionError, match="built-in"):
        shared(root, {"model": MODEL}, f"{id}.json")
    assert shared(root, {"model": MODEL}, f"{id}.json", id="mine").id == "mine"


@pytest.mark.parametrize(
    "model",
    [
        {"URLs": ["/home/them/x.safetensors"]},
        {"URLs": ["ckpts/x.safetensors"]},
        {"URLs": ["https://h/x.safetensors", "..\\..\\x.safetensors"]},
        {"modules": [["ckpts/module.safetensors"]]},
        {"preload_URLs": ["/etc/passwd"]},
        {"loras": ["/home/them/lora.safetensors"]},
        {"components": "/home/them/parts"},
        {"components": "../../parts"},
    ],
)
def test_files_of_the_authors_machine_are_refused(root, model):
    with pytest.raises(DefinitionError, match=r"author's machine|is not a repository|not an http"):
        shared(root, {"model": MODEL | {"architecture": "vace_1.3B"} | model})


def test_references_to_built_in_definitions_are_fine(root):
    found = shared(root, {"model": MODEL | {"architecture": "vace_1.3B", "modules": ["vace_1.3B"], "URLs": "t2v_1.3B"}})
    assert "transformer" in found.definition.slots
    assert shared(root, definition_of("nano_vace") | {"model": MODEL | {"URLs": "nano_t2v"}}).files[0].present


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", "<!doctype html><html>", '{"prompt": "x"}', '{"model": {"architecture": "nothing"}}',
        '{"model": {"architecture": "t2v", "URLs": ["file:///etc/passwd"]}}', "\x00\x01", "{" * 100_000,
        json.dumps({"model": MODEL | {"name": "\x1b[31mred"}, "prompt": "x"}).replace("t2v_1.3B", "\\u001b"),
    ],
)  # fmt: skip
def test_texts_that_are_no_definitions(root, text):
    with pytest.raises(ReeltuneError):
        shared(root, text)


def test_names_that_are_no_ids(root):
    for name in ("x y|z.json", "….json"):
        with pytest.raises(DefinitionError, match="Choose an id"):
            shared(root, {"model": MODEL}, name)
    assert shared(root, {"model": MODEL}, "…x.json", id="x").id == "x"
    with pytest.raises(DefinitionError, match="Invalid id"):
        shared(root, {"model": MODEL}, id="../x")


# --- where definitions come from --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("https://huggingface.co/me/x/blob/main/x.json", True),
        ("https://huggingface.co/me/x/resolve/main/x.json?download=true", True),
        ("https://gist.github.com/me/0123456789abcdef", True),
        ("https://gist.githubusercontent.com/me/01/raw", True),
        ("https://example.org/pack.zip", True),
        ("x.JSON", True),
        ("https://huggingface.co/me/x/blob/main/x.safetensors", False),
        ("https://civitai.com/models/1?modelVersionId=2", False),
        ("x.safetensors", False),
    ],
)
def test_what_is_a_definition_and_what_a_weight_file(source, expected):
    assert is_definition_source(source) is expected


def test_pages_of_gists_and_files(monkeypatch):
    asked = []

    class Fake:
        def __init__(self, **_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def interrupt(self):
            pass

        def read(self, url, most):
            asked.append(url)
            return json.dumps({"model": MODEL}).encode()

    monkeypatch.setattr("reeltune.sharing.incoming.Session", Fake)
    for url in (
        "https://gist.github.com/me/0123#file-x-json",
        "https://github.com/me/x/blob/main/a/x.json",
        "https://huggingface.co/me/x/blob/main/x.json",
    ):
        read_incoming(url, Preferences())
    assert asked == [
        "https://gist.githubusercontent.com/me/0123/raw",
        "https://raw.githubusercontent.com/me/x/main/a/x.json",
        "https://huggingface.co/me/x/resolve/main/x.json",
    ]


def test_a_page_instead_of_the_file(server, root):
    server.files["/x.json"] = b"<!doctype html><html>Log in</html>"
    with pytest.raises(FetchError, match="is a web page"):
        read_incoming(f"{server.url}/x.json", Preferences())
    server.files["/big.json"] = b" " * 20_000_001
    with pytest.raises(FetchError, match="more than"):
        read_incoming(f"{server.url}/big.json", Preferences())


def archive(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return path


def test_archives(root, tmp_path):
    definition = json.dumps({"model": MODEL})
    path = archive(tmp_path / "a.zip", {"pack/mine.json": definition, "pack/settings.json": "{}", "x.png": b"0"})
    incoming = read_incoming(str(path), Preferences())
    assert incoming.id == "mine"
    assert incoming.notices == ("Not used of the archive: pack/settings.json, x.png.",)
    assert read_incoming(str(archive(tmp_path / "e.zip", {"../../evil.json": definition})), Preferences()).id == "evil"
    for name, files in {
        "none.zip": {"a.txt": "x"},
        "two.zip": {"a.json": definition, "b.json": definition},
        "bomb.zip": {"a.json": b" " * 50_000_000},
        "many.zip": {f"{number}.txt": "" for number in range(1001)},
    }.items():
        with pytest.raises(DefinitionError):
            read_incoming(str(archive(tmp_path / name, files)), Preferences())
    (tmp_path / "broken.zip").write_bytes(path.read_bytes()[:100])
    with pytest.raises(DefinitionError, match="not a zip archive"):
        read_incoming(str(tmp_path / "broken.zip"), Preferences())


def test_local_servers_are_not_asked_by_definitions_from_elsewhere(server, root):
    server.files["/x.safetensors"] = b"0" * 100
    model = MODEL | {"URLs": [f"{server.url}/x.safetensors", "http://192.168.1.1/reboot?x_bf16.safetensors"]}
    path = root / "x.json"
    path.write_text(json.dumps({"model": model}))
    found = describe(load_catalog(root), read_incoming(str(path), Preferences()), Preferences())
    assert server.requests == []
    assert "local network" in found.files[0].problem
    server.files["/x.json"] = path.read_bytes()
    model["URLs"].pop()
    server.files["/x.json"] = json.dumps({"model": model}).encode()
    found = describe(load_catalog(root), read_incoming(f"{server.url}/x.json", Preferences()), Preferences())
    assert found.files[0].bytes == 100


def test_a_shared_definition_downloads_what_it_lists(hub, root, tmp_path):
    glow(root)
    catalog = load_catalog(root)
    options = PublishOptions(license=License("mit"))
    published = publish(catalog, "glow", options, open_repository(catalog, "me/glow"), tmp_path, lambda plan: plan)
    other = tmp_path / "other"
    (other / "finetunes").mkdir(parents=True)
    catalog = load_catalog(other)
    install(catalog, describe(catalog, read_incoming(published.url, Preferences()), Preferences()))
    plan = pull(load_catalog(other)["glow"])
    assert plan.missing == ()
    assert explain(load_catalog(other)["glow"]).path("transformer").parent == other / "ckpts"


def test_a_definition_whose_id_differs_in_upper_and_lower_case_is_replaced(root, define):
    """Two files beside each other would be one on Windows and macOS."""
    define("glow", MODEL | {"name": "Mine"})
    new = shared(root, {"model": MODEL}, "GLOW.json")
    assert (new.id, new.replaces) == ("glow", root / "finetunes" / "glow.json")
    with pytest.raises(DefinitionError, match="exists already"):
        install(load_catalog(root), new)
    assert install(load_catalog(root), new, force=True) == root / "finetunes" / "glow.json"
    assert [path.name for path in (root / "finetunes").iterdir()] == ["glow.json"]
    assert load_catalog(root)["glow"].name == "Shared"
