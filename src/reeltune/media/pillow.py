"""The exceptions that Pillow's decoders raise on damaged files, besides its own errors."""

from __future__ import annotations

import struct
import zlib

FAILURES = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)
