import contextlib
import json
import os
import random
import struct

import pytest

from conftest import safetensors_bytes
from reeltune.checkpoints.header import MAX_HEADER_BYTES, parse_header, read_header
from reeltune.errors import CheckpointError, HeaderError, UnsupportedFormat

GOOD = {"a.weight": ("BF16", [2, 3]), "b": ("F32", []), "c": ("I8", [4])}


def write(tmp_path, content: bytes):
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    return path


def forged(header: object, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def test_reads_names_dtypes_shapes_and_metadata(tmp_path):
    header = read_header(write(tmp_path, safetensors_bytes(GOOD, {"format": "pt"})))
    assert list(header.tensors) == ["a.weight", "b", "c"]
    tensor = header.tensors["a.weight"]
    assert (tensor.dtype, tensor.shape, tensor.end - tensor.begin, tensor.elements) == ("BF16", (2, 3), 12, 6)
    assert header.metadata == {"format": "pt"}
    assert header.trailing == 0


def test_agrees_with_the_safetensors_library(tmp_path):
    import torch
    from safetensors.torch import save_file

    path = tmp_path / "lib.safetensors"
    save_file({"x": torch.zeros(3, 5, dtype=torch.float16), "y": torch.zeros(7)}, path)
    header = read_header(path)
    assert {name: tensor.shape for name, tensor in header.tensors.items()} == {"x": (3, 5), "y": (7,)}


def test_bytes_after_the_data_are_a_notice(tmp_path):
    header = read_header(write(tmp_path, safetensors_bytes(GOOD) + b"tail"))
    assert header.trailing == 4
    assert "4 bytes follow" in header.notices[0]


@pytest.mark.parametrize("cut", [0, 3, 8, 20, -1])
def test_truncated_anywhere(tmp_path, cut):
    content = safetensors_bytes(GOOD)
    with pytest.raises(HeaderError, match=r"truncated|too short"):
        read_header(write(tmp_path, content[:cut]))


ROW = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (struct.pack("<Q", MAX_HEADER_BYTES + 1) + bytes(50), "not a safetensors file"),
        (struct.pack("<Q", 2**63) + bytes(50), "not a safetensors file"),
        (forged(b'{"a": \xff\xfe}'), "not UTF-8"),
        (forged(b"{'a': 1}"), "not valid JSON"),
        (forged(b"[" * 60_000), "nested|not valid JSON"),
        (forged([1, 2]), "not a JSON object"),
        (forged({}), "no tensors"),
        (forged({"a": 5}), "lacks its dtype"),
        (forged({"a": {"dtype": "F32", "shape": [1]}}), "lacks its dtype"),
        (forged({"a": ROW | {"dtype": "F99"}}, bytes(4)), "unknown dtype"),
        (forged({"a": ROW | {"shape": [-1]}}, bytes(4)), "impossible"),
        (forged({"a": ROW | {"shape": [1.0]}}, bytes(4)), "impossible"),
        (forged({"a": ROW | {"shape": [True]}}, bytes(4)), "impossible"),
        (forged({"a": ROW | {"shape": "1"}}, bytes(4)), "impossible"),
        (forged({"a": ROW | {"shape": [2**61, 2**61]}}, bytes(4)), "impossible"),
        (forged({"a": ROW | {"shape": [0, 2**40, 2**40], "data_offsets": [0, 0]}}), "impossible"),
        (forged({"a": ROW | {"shape": [1] * 17}}, bytes(4)), "impossible"),
        (forged({"a": ROW | {"shape": [2**20]}}, bytes(4)), "takes 4 bytes"),
        (forged({"a": ROW | {"data_offsets": [4, 0]}}, bytes(4)), "takes -4 bytes"),
        (forged({"a": ROW, "b": ROW | {"data_offsets": [2, 6]}}, bytes(8)), "overlaps"),
        (forged({"a": ROW, "b": ROW | {"data_offsets": [8, 12]}}, bytes(12)), "belong to none"),
        (forged({"a": ROW}, bytes(3)), "truncated"),
        (forged({"a": ROW, "__metadata__": {"x": 1}}, bytes(4)), "table of strings"),
        (forged(b'{"a": {}, "a": {}}'), "occurs twice"),
    ],
)
def test_every_fault_is_named(tmp_path, content, fault):
    with pytest.raises(HeaderError, match=fault):
        read_header(write(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"<!DOCTYPE html><html>", "web page"),
        (b'{"error": "login"}', "web page"),
        (b"GGUF" + bytes(100), "GGUF"),
        (b"PK\x03\x04" + bytes(100), "pickle"),
        (b"\x80\x04\x95" + bytes(100), "pickle"),
        (b"\x1f\x8b\x08" + bytes(100), "compressed with gzip"),
        (b"Entry not found", "text file"),
    ],
)
def test_other_formats_are_refused_by_name(tmp_path, content, what):
    with pytest.raises(UnsupportedFormat, match=what):
        read_header(write(tmp_path, content))


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 28577044472\n" % (b"a" * 64)


def test_a_git_lfs_pointer_is_named_with_the_size_of_its_file(tmp_path):
    with pytest.raises(UnsupportedFormat, match=r"Git LFS pointer.* of 28,577,044,472 bytes.*/resolve/"):
        read_header(write(tmp_path, POINTER))


def test_messages_quote_nothing_of_a_file_that_is_no_checkpoint(tmp_path):
    for secret in (b"s3cr3t!!" + bytes(50), b"root:x:0:0::/root:/bin/sh\n", struct.pack("<Q", 77_123) + b"hush"):
        with pytest.raises(CheckpointError) as caught:
            read_header(write(tmp_path, secret))
        for leak in ("s3cr3t", "root:", "77123", "77,123", "hush", str(struct.unpack("<Q", secret[:8])[0])):
            assert leak not in str(caught.value)


def test_null_metadata_is_none(tmp_path):
    """As the official library reads it."""
    from safetensors import safe_open

    path = write(tmp_path, forged({"__metadata__": None, "a": ROW}, bytes(4)))
    assert dict(read_header(path).metadata) == {}
    with safe_open(path, "np") as file:
        assert list(file.keys()) == ["a"]


def test_names_come_out_as_text_that_can_be_written(tmp_path):
    path = write(tmp_path, forged(b'{"a\\ud800": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}', bytes(4)))
    assert [name.encode("utf-8") for name in read_header(path).tensors] == ["a\ufffd".encode()]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are a matter of POSIX")
def test_a_named_pipe_is_no_file_and_nothing_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(HeaderError, match="not a regular file"):
        read_header(tmp_path / "pipe.safetensors")


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(HeaderError, match="opened"):
            read_header(path)


def test_random_damage_never_escapes_as_another_error(tmp_path):
    rng = random.Random(5)
    good = safetensors_bytes(GOOD, {"format": "pt"})
    for _ in range(400):
        content = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(len(content) - 32)] = rng.randrange(256)

        class Memory:
            name = "memory"

            def size(self, content=content) -> int:
                return len(content)

            def read_at(self, offset: int, length: int, content=content) -> bytes:
                return bytes(content[offset : offset + length])

        with contextlib.suppress(CheckpointError):  # anything else would escape and fail the test
            parse_header(Memory())
