"""Seeded damage to what comes from strangers: JSON values, texts, bytes, safetensors files and the comments of MP4s.

random = Random(7)
raw = mutated_json(random, {"model": {"URLs": []}}, ("URLs", "modules"))
"""

from __future__ import annotations

import copy
import json
import string
import struct
from collections.abc import Sequence
from random import Random
from typing import Any

VALUES = [
    None, True, False, 0, 1, -1, 1.5, 1e308, -1e308, float("nan"), float("inf"), 2**31, 2**53, 2**63, 10**18, 10**400,
    -(10**310), "", " ", "x", "t2v", "f", "t2v#URLs", "#", "nano_t2v", "auto", "832x480", "99999x99999", "1x1", "10s", "-1",
    "1e999", "9" * 5000, "\ud800", "a\udfffb", "a\0b", "\u2028", "\u202e", "\x1b[31m", "é" * 3000, "x" * 200_000, "𝟙𝟘",
    "https://[x", "https://h/x_bf16.safetensors", "file:///etc/passwd", "../../x", "~nobody-here/x", "C:\\x", "{Name}", "! {",
    '! {A}="a","b" : {B}="c"\n{A} {B}', "a\nb\nc", "[" * 300, [], {}, [None], [[]], [[[]]], ["t2v"], [["t2v"]], ["a", 5],
    " " * 20_000, "\n" * 20_000, "_" * 20_000, "{" * 20_000, "! {" + " " * 20_000, '! {A}="x"\n{' + " " * 20_000, "a/" * 9000,
    "../" * 9000, '"' * 20_000, "# " * 9000, [0] * 5000, ["x"] * 5000, {"a": {"b": []}}, {"": None}, {"\ud800": "\ud800"},
]  # fmt: skip
DEPTHS = (60, 70, 900, 3000)
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "utf-7")


def mutated_value(random: Random, value: Any, keys: Sequence[str] = ()) -> Any:
    """A copy of a JSON value with one to three things in it changed, added or removed. `keys`: those that are added."""
    if random.random() < 0.02:
        return _any_value(random)
    value = copy.deepcopy(value)
    for _ in range(random.choice((1, 1, 2, 3))):
        places = _containers(value)
        place = random.choice(places[:3] if random.random() < 0.7 else places)
        if isinstance(place, dict):
            _change_object(random, place, keys)
        else:
            _change_list(random, place)
    return value


def _any_value(random: Random) -> Any:
    """One of `VALUES`, copied: what is put into a value may be changed next."""
    return copy.deepcopy(random.choice(VALUES))


def _containers(value: Any) -> list[Any]:
    """A value and the objects and lists inside it, outermost first."""
    found = [value]
    for place in found:  # it grows meanwhile
        members = place.values() if isinstance(place, dict) else place
        found += [member for member in members if isinstance(member, dict | list)]
    return found


def _change_object(random: Random, place: dict[str, Any], keys: Sequence[str]) -> None:
    key = random.choice([*place, *keys, "zzz"])
    action = random.random()
    if action < 0.15:
        place.pop(key, None)
    elif action < 0.25:
        other = random.choice((key + "x", key.upper(), key[1:], "\ud800", "", "a\0", "k" * 5000))
        place[other] = place.pop(key, 1)
    elif action < 0.4 and isinstance(place.get(key), list):
        place[key] = [*place[key], _any_value(random)]
    elif action < 0.45:
        place[key] = _nested(random, place.get(key))
    else:
        place[key] = _any_value(random)


def _change_list(random: Random, place: list[Any]) -> None:
    if place and random.random() < 0.2:
        del place[random.randrange(len(place))]
    elif place and random.random() < 0.7:
        place[random.randrange(len(place))] = _any_value(random)
    else:
        place.insert(random.randint(0, len(place)), _any_value(random))


def _nested(random: Random, value: Any) -> Any:
    """A value inside many lists or objects; as many as `json.dumps` can write."""
    for _ in range(random.choice(DEPTHS[:2])):
        value = [value] if random.random() < 0.5 else {"a": value}
    return value


def mutated_text(random: Random, text: str) -> str:
    """A text with characters replaced, removed, doubled or cut off, keys repeated, or brackets piled up."""
    for _ in range(random.randint(1, 3)):
        start = random.randrange(len(text) + 1)
        stop = min(len(text), start + random.choice((1, 1, 1, 5, 50)))
        new = random.choice(
            ("", random.choice(string.printable), random.choice('{}[]",:\\'), text[start:stop] * 2, "\\ud800", "\0", "NaN",
             "1" * 400, '"seed": 1, "seed": 2,', '"model": {}, ', "// x", "True", "\ufeff",
             random.choice((" ", "\n", "{}", '"', "a,", "```\n", "\\")) * 100_000)
        )  # fmt: skip
        if random.random() < 0.05:
            depth = random.choice(DEPTHS)
            new = random.choice(("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "[" * depth))
        text = text[:start] + new + text[stop:]
    return text if random.random() < 0.9 else text[: random.randrange(len(text) + 1)]


def mutated_bytes(random: Random, content: bytes) -> bytes:
    """The bytes of any file, with one kind of damage."""
    raw = bytearray(content)
    kind = random.choice(["bits", "bytes", "cut", "empty", "insert", "swap", "length", "head", "repeat", "random"])
    if kind == "bits":
        for _ in range(random.randint(1, 20)):
            raw[random.randrange(len(raw))] ^= 1 << random.randrange(8)
    elif kind == "bytes":
        for _ in range(random.randint(1, 60)):
            raw[random.randrange(len(raw))] = random.choice((0, 1, 127, 128, 255))
    elif kind == "cut":
        del raw[random.randrange(len(raw)) :]
    elif kind == "empty":
        raw = raw[: random.randrange(8)]
    elif kind == "insert":
        at = random.randrange(len(raw))
        raw[at:at] = random.randbytes(random.randint(1, 300))
    elif kind == "swap":
        first, second, length = random.randrange(len(raw)), random.randrange(len(raw)), random.randint(1, 200)
        raw[first : first + length], raw[second : second + length] = (
            raw[second : second + length],
            raw[first : first + length],
        )
    elif kind == "length":  # sizes and counts of boxes and chunks
        at = random.randrange(max(1, min(len(raw) - 4, 400)))
        raw[at : at + 4] = random.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4), b"\0\0\0\1"))
    elif kind == "head":
        raw[16 : 16 + random.randint(1, 64)] = random.randbytes(random.randint(1, 64))
    elif kind == "repeat":
        raw *= random.randint(2, 5)
    else:
        raw[16:] = random.randbytes(max(0, len(raw) - 16))
    return bytes(raw)


def mutated_json(random: Random, value: Any, keys: Sequence[str] = ()) -> bytes:
    """The bytes of a JSON file in which the value, its text, its encoding or its bytes are damaged, or several."""
    if random.random() < 0.75:
        value = mutated_value(random, value, keys)
    indent = random.choice((None, 1, 4))
    text = json.dumps(value, indent=indent, ensure_ascii=random.random() < 0.5)
    if random.random() < 0.3:
        text = mutated_text(random, text)
    action = random.random()
    if action < 0.06:
        return text.encode(random.choice(ENCODINGS), "replace")
    raw = text.encode("utf-8", random.choice(("surrogatepass", "replace")))
    if action < 0.12:
        return b"\xef\xbb\xbf" * random.choice((1, 2)) + raw
    if action < 0.2 and raw:
        return mutated_bytes(random, raw)
    return raw


# --- safetensors files ------------------------------------------------------------------------------------------------

HEADER_VALUES = [
    None, True, -1, 0, 1, 2, 3, 1.5, 2**31, 2**40, 2**61, 2**63, 10**400, "", "F32", "I8", "F8_E4M3", "F4", "BOOL", "I64",
    "\ud800", "x" * 3000, [], {}, [0], [1], [2**40], [1] * 70, [0, 4], [4, 0], float("nan"), float("inf"), {"dtype": "F32"},
]  # fmt: skip
METADATA = [
    None, {}, [], "text", 5, {"config": 5}, {"config": "{"}, {"config": "[]"}, {"config_base64": "!"}, {"config": "[" * 9000},
    {"config": '{"num_attention_heads": 0, "rope_max_seq_len": 1000000000000, "eps": 1e999}'},
    {"config": '{"num_attention_heads": -3, "num_heads": 48, "rope_max_seq_len": -1, "eps": -1.0}'},
    {"config": '{"num_attention_heads": 24, "rope_axes_dim": [1, 1, 1], "vace_layers": [0, 99]}'},
    {"config": '{"rope_axes_dim": [1000000000000, 2, 2], "vace_layers": [9999999999, -5]}'},
    {"quantization_format": "quanto", "quantization_map_base64": "e30="}, {"reeltune_loras": "[["}, {"\ud800": "\ud800"},
    {"lora_adapter_metadata": "[[["}, {"lora_adapter_metadata": '{"lora_alpha": 1e999, "alpha_pattern": 3, "r": "x"}'},
]  # fmt: skip


def header_and_data(raw: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the data of a safetensors file."""
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def safetensors_file(header: object, data: bytes = b"") -> bytes:
    """The bytes of a safetensors file with this header."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def mutated_safetensors(random: Random, header: dict[str, Any], data: bytes) -> bytes:
    """The bytes of a safetensors file with one to three things wrong."""
    header = copy.deepcopy(header)
    for _ in range(random.choice((1, 1, 2, 3))):
        data = _change_file(random, header, data)
    raw = bytearray(safetensors_file(header, data))
    for _ in range(random.choice((0, 0, 1, 8))):
        raw[random.randrange(min(len(raw), 4000))] = random.randrange(256)
    return bytes(raw)


def _change_file(random: Random, header: dict[str, Any], data: bytes) -> bytes:
    """Change one thing in the header, or in the data, which are returned."""
    name = random.choice(list(header))
    tensor = header[name]
    kind = random.randrange(9)
    if kind == 0:
        header["__metadata__"] = copy.deepcopy(random.choice(METADATA))
    elif kind == 1 and name != "__metadata__":
        header[random.choice((name + "x", "a." + name, name[1:], "lora_A", name.replace(".", "_"), "\ud800"))] = (
            header.pop(name)
        )
    elif kind == 2:
        header[name] = copy.deepcopy(random.choice(HEADER_VALUES))
    elif kind == 3 and isinstance(tensor, dict):
        tensor[random.choice(("dtype", "shape", "data_offsets", "other"))] = copy.deepcopy(random.choice(HEADER_VALUES))
    elif kind == 4 and len(header) > 2:
        del header[name]
    elif kind == 5 and isinstance(tensor, dict) and isinstance(tensor.get("shape"), list) and tensor["shape"]:
        shape = tensor["shape"]  # the same number of values, in another shape
        tensor["shape"] = random.choice((shape[::-1], [*shape, 1], [1, *shape], shape))
    elif kind == 6 and isinstance(tensor, dict):
        swap = {"BF16": "F16", "F16": "BF16", "F32": "I32", "I8": "U8"}
        dtype = tensor.get("dtype")
        tensor["dtype"] = swap.get(dtype, "I8") if isinstance(dtype, str) else "I8"
    elif kind == 7:
        return data[: random.randrange(len(data) + 1)]
    else:
        spot = random.randrange(len(data)) if data else 0
        return data[:spot] + random.randbytes(2) + data[spot + 2 :]
    return data


# --- comments of MP4 files --------------------------------------------------------------------------------------------

_COMMENT_BOXES = (b"moov", b"udta", b"meta", b"ilst", b"\xa9cmt", b"data")
_LENGTH_BYTES, _BOX_BYTES = 4, 8
_BEFORE_TEXT = 8  # bytes of a `data` box before its text: the kind and the language


def with_comment(mp4: bytes, comment: bytes) -> bytes:
    """An MP4 file with another comment, of any bytes: only the boxes around it are changed, so no frame can be decoded."""
    raw = bytearray(mp4)
    starts: list[int] = []
    position = 0
    for name in _COMMENT_BOXES:
        position = raw.index(name, position) - _LENGTH_BYTES
        starts.append(position)
        position += _BOX_BYTES
    begin = starts[-1] + _BOX_BYTES + _BEFORE_TEXT
    (length,) = struct.unpack_from(">I", raw, starts[-1])
    end = starts[-1] + length
    for start in starts:
        (length,) = struct.unpack_from(">I", raw, start)
        struct.pack_into(">I", raw, start, length + len(comment) - (end - begin))
    raw[begin:end] = comment
    return bytes(raw)
