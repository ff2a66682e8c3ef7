"""Every command with files and words that can't be right: an error with what, why and the next step; no traceback, no wait."""

import os
import sys

import pytest

from reeltune.cli.app import main

KINDS = ("text", "empty", "binary", "huge", "not-utf-8", "folder", "pipe", "absent", "no path", "long", "nul")
posix = pytest.mark.skipif(sys.platform == "win32", reason="named pipes, and names that aren't text")


@pytest.fixture
def bad(tmp_path, kind):
    """The path of something that no command can use."""
    folder = tmp_path / "input"
    folder.mkdir()
    name = {"not-utf-8": os.fsdecode(b"\xff\xfe.json"), "no path": "", "long": "x" * 5000, "nul": "a\0b"}.get(
        kind, kind
    )
    path = folder / name
    if kind in ("text", "not-utf-8"):
        path.write_bytes(b"hello")
    elif kind == "empty":
        path.touch()
    elif kind == "binary":
        path.write_bytes(bytes(range(256)) * 9)
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(50_000_000_000)  # a hole
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    return "" if kind == "no path" else str(path)


COMMANDS = [
    ("inspect", "{}"),
    ("decode", "{}"),
    ("add", "{}"),
    ("quantize", "{}"),
    ("quantize", "nano_t2v", "-o", "{}"),
    ("show", "{}"),
    ("explain", "{}"),
    ("pull", "{}", "--dry-run"),
    ("rm", "{}", "--dry-run"),
    ("verify", "{}"),
    ("settings", "export", "{}"),
    ("settings", "read", "{}"),
    ("generate", "nano_t2v", "--settings", "{}"),
    ("urls", "replace", "{}", "a", "b"),
    ("generate", "{}", "x"),
    ("generate", "nano_t2v", "x", "-o", "{}"),
    ("generate", "nano_t2v", "x", "--set", "{}"),
    ("generate", "nano_t2v", "x", "--image-start", "{}"),
    ("generate", "nano_i2v", "x", "--image-start", "{}"),
    ("generate", "nano_vace", "x", "--video-guide", "{}"),
    ("generate", "nano_t2v", "x", "--device", "{}"),
    ("generate", "nano_t2v", "x", "--dtype", "{}"),
]


@posix
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(word for word in words if word != "{}"))
def test_unusable_arguments_are_clear_errors(words, kind, bad, root, capsys):
    arguments = [word if word != "{}" else bad for word in words]
    with pytest.raises(SystemExit) as stop:
        main(arguments if words[0] == "inspect" or words[1] == "read" else [*arguments, "--root", str(root)])
    captured = capsys.readouterr()
    assert stop.value.code in (1, 2)
    assert not captured.out
    lines = [line for line in captured.err.splitlines() if line.strip() and not line.startswith("·")]
    assert lines[0].startswith("Error: ")
    assert len(lines) > 1, "no next step"
    assert captured.err.encode("utf-8")
    for internal in ("Traceback", "Errno", "codec can't", "object at 0x"):
        assert internal not in captured.err


@posix
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("no path", "folder", "nul")])
def test_check_names_what_it_cannot_read(kind, bad, root, capsys):
    with pytest.raises(SystemExit):
        main(["check", bad, "--root", str(root)])
    captured = capsys.readouterr()
    assert "1 definition checked: 1 error" in captured.out
    assert captured.out.encode("utf-8")


@posix
@pytest.mark.parametrize("kind", ["text", "pipe", "long", "below a file"])
@pytest.mark.parametrize(
    "words",
    [("list",), ("explain", "nano_t2v"), ("generate", "nano_t2v"), ("ls",), ("config", "list"), ("gc",)],
    ids=str,
)
def test_an_impossible_root_is_reported_at_once(words, kind, tmp_path, capsys):
    (tmp_path / "text").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    root = tmp_path / {"long": "x" * 5000, "below a file": "text/x"}.get(kind, kind)
    with pytest.raises(SystemExit) as stop:
        main([*words, "--root", str(root)])
    captured = capsys.readouterr()
    assert stop.value.code == 1
    assert "can't be the working folder" in captured.err
    assert "--root" in captured.err


@posix
@pytest.mark.parametrize(
    "options",
    [(), ("-o", "{}/text/x.mp4"), ("-o", "{}/" + "x" * 300 + ".mp4")],
    ids=["outputs", "below a file", "long"],
)
def test_an_unwritable_output_is_reported_before_any_work(options, tmp_path, capsys):
    (tmp_path / "text").write_text("x")
    (tmp_path / "outputs").write_text("a file in the place of the folder")
    with pytest.raises(SystemExit):
        main(["generate", "nano_t2v", *[word.format(tmp_path) for word in options], "--root", str(tmp_path)])
    captured = capsys.readouterr()
    assert "can't be written" in captured.err
    assert "transformer" not in captured.err
