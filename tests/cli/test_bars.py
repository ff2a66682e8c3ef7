import io

from rich.console import Console

from reeltune.cli.bars import Bars
from reeltune.events import Progress


def drawn(width, *events):
    console = Console(file=io.StringIO(), width=width)
    bars = Bars(console)
    for event in events:
        bars.show(event)
    bars.close()
    return console.file.getvalue()


def test_nothing_is_printed_without_progress():
    assert drawn(80) == ""


def test_amounts_and_times_are_complete_at_any_width():
    name = "wan2.1_a_finetune_with_a_rather_long_name_quanto_bf16_int8.safetensors"
    events = [Progress("load", done, 150, "tensors", name) for done in (0, 75, 150)]
    for width in (72, 80, 120, 200):
        lines = drawn(width, *events, Progress("denoise", 0, 20), Progress("denoise", 20, 20)).splitlines()
        assert lines[0].startswith("Loading wan2.1_a_finetune")
        assert "150/150" in lines[0]
        assert lines[1].split()[-3:] == ["20/20", "0.0", "s"]
        assert all(line.endswith(" s") and len(line) <= width for line in lines)


def test_control_characters_in_names_are_escaped():
    assert "\x1b[31m" not in drawn(120, Progress("load", 0, 1, subject="\x1b[31mred[bold]"))
    assert "[bold]" in drawn(120, Progress("load", 0, 1, subject="[bold]"))
