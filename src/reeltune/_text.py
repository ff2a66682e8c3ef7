"""Formatting of sizes, counts, durations and long texts, shared by the command line and the web page."""

from __future__ import annotations


def size(count: int | None) -> str:
    """A number of bytes in B, KB, MB or GB; "?" if unknown."""
    if count is None:
        return "?"
    amount = float(count)
    for unit in ("B", "KB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.2f} GB"


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 file", "1,200 files"."""
    plural = "" if number == 1 else "s"
    return f"{number:,} {noun}{plural}"


def duration(seconds: float) -> str:
    """A rounded duration: "8 s", "25 s", "3 min", "1 h 20 min"."""
    if seconds < 10:
        return f"{max(1, round(seconds))} s"
    if seconds < 57.5:
        return f"{round(seconds / 5) * 5} s"
    minutes = max(1, round(seconds / 60))
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def shortened(text: str, most: int) -> str:
    """`text` cut to at most `most` characters; a cut text ends in an ellipsis."""
    return text if len(text) <= most else text[: most - 1] + "…"
