"""Numbers as people read them, the same on the command line and on the page."""

from __future__ import annotations


def size(count: int | None) -> str:
    """Bytes as people read them; "?" where unknown."""
    if count is None:
        return "?"
    amount = float(count)
    for unit in ("B", "KB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.2f} GB"
