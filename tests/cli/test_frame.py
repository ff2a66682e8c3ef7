"""What all commands share: where --root may stand, help, mistakes on the command line, and the preferences."""

import io
import json

import pytest

from reeltune.cli.app import main
from reeltune.errors import DeviceError
from reeltune.machine import Gpu, Machine
from reeltune.preferences import load_preferences


@pytest.fixture
def run(capsys, monkeypatch):
    """Run a command line; returns exit code, stdout, stderr."""

    def call(*words, stdin=""):
        code = 0
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        try:
            main([*words])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_the_root_is_accepted_before_and_after_the_command(run, root, monkeypatch, tmp_path):
    (root / "reeltune.json").write_text('{"dtype": "fp16"}')
    (tmp_path / "reeltune.json").write_text('{"dtype": "bf16"}')
    words = ("config", "get", "dtype")
    assert run("--root", str(root), *words)[1] == "fp16\n"
    assert run(*words, "--root", str(root))[1] == "fp16\n"
    monkeypatch.setenv("REELTUNE_ROOT", str(tmp_path))
    assert run(*words)[1] == "bf16\n"
    assert run("--root", str(root), *words)[1] == "fp16\n"
    assert run("--root", str(root), *words, "--root", str(tmp_path))[1] == "bf16\n"


@pytest.mark.parametrize("words", [(), ("generate",), ("config",), ("config", "set"), ("settings", "export")])
def test_short_help_everywhere(run, words):
    code, out, _ = run(*words, "-h")
    assert (code, "--help" in out) == (0, True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("generate", "nano_t2v", "a", "red", "circle"), 'reeltune generate nano_t2v "a red circle"'),
        (("generate", "nano_t2v", "--promt", "x"), "reeltune generate ID PROMPT"),
        (("generate", "nano_t2v", "--sead", "1"), "Did you mean --seed?"),
        (("generate", "nano_t2v", "--steps", "5"), "--set num_inference_steps=VALUE"),
        (("generate", "nano_t2v", "--guidance-scale", "5"), "--set guidance_scale=VALUE"),
        (("list", "--rot", "x"), "Did you mean --root?"),
        (("list", "x"), "reeltune list -h"),
        (("list", "--zzz"), "reeltune list -h"),
        (("generat",), "generate"),
        (("ui", "--port", "x"), "--port"),
        (("config", "get"), "NAME"),
    ],
)
def test_mistakes_on_the_command_line(run, words, expected):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert expected in err


def test_preferences_are_listed_shown_and_set(run, root):
    at = ("--root", str(root))
    assert run("config", "set", "dtype", "FP16", *at)[0] == 0
    assert run("config", "set", "connections", "8", *at)[0] == 0
    assert run("config", "set", "rate_limit", "2.5", *at)[0] == 0
    assert run("config", "set", "compile", "yes", *at)[0] == 0
    assert run("config", "set", "model_folders", "/a", "/b c", *at)[0] == 0
    preferences, _ = load_preferences(root)
    assert (preferences.dtype, preferences.connections, preferences.compile) == ("fp16", 8, True)
    assert preferences.model_folders == ("/a", "/b c")
    assert run("config", "get", "model_folders", *at)[1] == "/a\n/b c\n"
    assert run("config", "get", "compile", *at)[1] == "true\n"
    lines = {line.split()[0]: line for line in run("config", "list", *at)[1].splitlines()}
    assert "fp16 (default: auto)" in lines["dtype"]
    assert "auto, bf16, fp16" in lines["dtype"]
    assert json.loads(run("config", "list", "--json", *at)[1])["connections"] == 8
    assert run("config", "set", "dtype", *at)[0] == 0
    assert load_preferences(root)[0].dtype == "auto"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("set", "connections", "80"), "from 1 to 16"),
        (("set", "connections", "many"), "'many'"),
        (("set", "conections", "8"), "Did you mean 'connections'?"),
        (("get", "mood"), "config list"),
        (("set", "outputs", "my", "videos"), 'outputs "my videos"'),
        (("set", "compile", "maybe"), "true or false"),
        (("set", "hub_token", "hf_1"), "history"),
        (("set", "device", "banana"), "auto, cpu, mps, cuda"),
        (("set", "device", "cuda:999"), "cuda:999"),
    ],
)
def test_invalid_preferences_can_not_be_set(run, root, words, expected):
    code, out, err = run("config", *words, "--root", str(root))
    assert (code, out) == (1, "")
    assert expected in err
    assert not (root / "reeltune.json").exists()


def test_a_token_is_read_from_the_input_and_never_shown(run, root):
    at = ("--root", str(root))
    assert run("config", "get", "hub_token", *at)[1] == "not set\n"
    assert "hf_secret" not in "".join(run("config", "set", "hub_token", *at, stdin="hf_secret\n")[1:])
    assert load_preferences(root)[0].tokens == {"hub": "hf_secret"}
    assert (root / "reeltune.json").stat().st_mode & 0o077 == 0
    assert "hf_secret" not in "".join(run("config", "list", *at)[1:])
    assert run("config", "get", "hub_token", *at)[1] == "set\n"
    run("config", "set", "hub_token", *at, stdin="\n")
    assert load_preferences(root)[0].tokens == {}


def test_setting_a_preference_fixes_an_invalid_value_and_keeps_unknown_keys(run, root):
    path = root / "reeltune.json"
    path.write_text('{"dtype": "fp32", "future": 1}')
    at = ("--root", str(root))
    code, out, err = run("config", "get", "dtype", *at)
    assert (code, out) == (0, "auto\n")
    assert "Invalid value 'fp32' for dtype" in err
    assert run("config", "set", "connections", "2", *at)[0] == 0
    assert json.loads(path.read_text())["dtype"] == "fp32"
    assert run("config", "set", "dtype", "auto", *at)[0] == 0
    assert json.loads(path.read_text())["dtype"] == "auto"
    assert json.loads(path.read_text())["future"] == 1
    assert not run("config", "list", *at)[2]


def test_invalid_preferences_stop_no_command(run, root):
    (root / "reeltune.json").write_text('{"dtype": "fp32", "outputs": "a\\u0000b", "connections": %s}' % ("9" * 310))
    for words in (("list",), ("explain", "nano_t2v"), ("ls",), ("check",), ("pull", "nano_t2v")):
        assert run(*words, "--root", str(root))[0] == 0, words
    _, _, err = run("explain", "nano_t2v", "--root", str(root))
    assert err.count("reeltune.json") == 3


def test_common_names_of_values_are_accepted(run, root):
    words = ("explain", "t2v", "--root", str(root), "--json")
    (as_16_bits,) = {
        run(*words, "--quantization", name, "--dtype", dtype)[1]
        for name, dtype in (("bf16", "fp16"), ("FP16", "FP16"), ("16bit", "Float16"))
    }
    assert "mbf16" in as_16_bits


def test_a_missing_preferred_device_is_reported_before_downloads(run, root, monkeypatch, define):
    monkeypatch.setattr("reeltune.engine.ready.probe", lambda: Machine(2**34, 2**33))
    (root / "reeltune.json").write_text('{"device": "cuda"}')
    define("far", {"architecture": "t2v", "URLs": ["https://never.invalid/x_bf16.safetensors"]})
    code, _, err = run("generate", "far", "a boat", "--root", str(root))
    assert (code, "Error: The device 'cuda' is not available" in err) == (1, True), err


def test_a_missing_device_is_reported_first(run, root, monkeypatch):
    monkeypatch.setattr("reeltune.machine.probe", lambda: Machine(2**34, 2**33))
    for words in (("generate", "nano_t2v"), ("explain", "nano_t2v")):
        code, out, err = run(*words, "--device", "cuda", "--root", str(root))
        assert (code, out) == (1, "")
        assert "no NVIDIA GPU" in err
        assert "Use auto or cpu" in err


@pytest.mark.parametrize(
    ("machine", "device", "expected"),
    [
        (Machine(1, 1), "cuda", "no NVIDIA"),
        (Machine(1, 1), "mps", "no Apple GPU"),
        (Machine(1, 1, (Gpu("RTX", 1, 8.6),)), "cuda:9", r"'cuda:9' is not available\. .*cuda:0 \(RTX\)"),
        (Machine(1, 1, (Gpu("RTX", 1, 8.6),)), "mps", "no Apple GPU"),
    ],
)
def test_which_devices_a_machine_has(machine, device, expected):
    with pytest.raises(DeviceError, match=expected):
        machine.check_device(device)


def test_available_devices_are_accepted():
    Machine(1, 1).check_device("auto")
    Machine(1, 1).check_device("cpu")
    Machine(1, 1, (Gpu("RTX", 1, 8.6),)).check_device("cuda:0")
    Machine(1, 1, apple=True).check_device("mps")
    Machine(1, 1, unlisted=True).check_device("cuda:3")


@pytest.mark.parametrize(
    ("variable", "names"),
    [(None, "abc"), ("", ""), ("-1", ""), ("2,0", "ca"), ("1,9,0", "b"), ("GPU-1f", "abc"), ("none", "")],
)
def test_visible_cards(variable, names):
    from reeltune.machine import _visible

    cards = tuple(Gpu(name, 1, 8.0) for name in "abc")
    assert "".join(gpu.name for gpu in _visible(cards, variable)) == names
