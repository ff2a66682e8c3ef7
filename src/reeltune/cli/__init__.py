"""The command line. Importing it doesn't import torch."""

from __future__ import annotations

from reeltune.cli.app import main

__all__ = ["main"]
