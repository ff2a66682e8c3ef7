import io
import json
import sys

import pytest
from rich.console import Console

from reeltune.cli.app import main
from reeltune.cli.bars import Bars
from reeltune.cli.output import err, out, print_json, print_line, print_notice, print_table
from reeltune.events import Progress

ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"  # a flag of invisible characters
HARD_TO_PRINT = f"a\u00a0fox,\u00ad {ENGLAND} \u009b31m \u200b \x1b[2J 🦊 [red]x[/] :star:"


@pytest.fixture(params=["utf-8", "cp1252", "ascii"])
def printed(request, monkeypatch):
    """Run a function whose stdout is a file of another encoding; returns what it has written."""

    def call(function, *args):
        raw = io.BytesIO()
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=request.param, newline=""))
            function(*args)
            return raw.getvalue().decode(request.param)

    return call


def test_settings_of_a_file_are_printed_as_json_whatever_its_prompt(tmp_path, printed):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"prompt": HARD_TO_PRINT, "seed": 7}), encoding="utf-8")
    text = printed(main, ["settings", "read", str(path)])
    assert json.loads(text)["prompt"] == HARD_TO_PRINT
    assert not {"\x1b", "\u009b"} & set(text)


def test_json_is_printed_without_control_characters(printed):
    text = printed(print_json, {"name": HARD_TO_PRINT, "other": "\ud800"})
    assert json.loads(text) == {"name": HARD_TO_PRINT, "other": "\ud800"}
    assert "\u009b" not in text


def test_characters_that_the_encoding_of_stdout_lacks_are_escaped(printed):
    (line,) = printed(print_line, "Füchse 🦊").splitlines()
    _, row, other = printed(print_table, ("NAME",), [("Füchse 🦊",), ("other",)]).splitlines()
    assert line == row
    assert other == "other"
    assert line in ("Füchse 🦊", "Füchse \\U0001f98a", "F\\xfcchse \\U0001f98a")


def test_names_of_emoji_are_printed_as_they_are(capsys):
    print_line("/videos/a:star:b.mp4")
    print_notice("a :star: b")
    assert [out._emoji, err._emoji] == [False, False]
    captured = capsys.readouterr()
    assert captured.out == "/videos/a:star:b.mp4\n"
    assert ":star:" in captured.err


def test_names_of_emoji_and_brackets_in_files_are_shown_in_bars():
    console = Console(file=io.StringIO(), width=120)
    bars = Bars(console)
    bars.show(Progress("download", 1, 2, subject="a:star:[red].safetensors"))
    bars.close()
    assert "a:star:[red]" in console.file.getvalue()


def test_a_line_is_written_at_once(printed):
    assert printed(print_line, "The page is at http://127.0.0.1:7860/")  # nothing is left in the buffer of a pipe
