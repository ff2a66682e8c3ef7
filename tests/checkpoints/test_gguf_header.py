"""Headers of GGUF files: what is read, what is restored, every fault named, thousands of damaged ones."""

import json
import struct
import time
import tracemalloc
from random import Random

import gguf
import numpy as np
import pytest

from conftest import CONTAINERS
from gguf_files import ARRAY, I32, TEXT, U32, U64, Entry, File, encoded, text, text_array
from reeltune import inspect
from reeltune.checkpoints.contents import Header, Tensor
from reeltune.checkpoints.gguf_header import read_gguf_header
from reeltune.checkpoints.gguf_types import DECODED, TYPES
from reeltune.checkpoints.header import parse_header, read_header
from reeltune.checkpoints.identify import identify
from reeltune.checkpoints.names import converted_name, name_objection, quantized_name, read_name
from reeltune.errors import CheckpointError, HeaderError, UnsupportedFormat

GOOD = {"a.weight": Entry("Q8_0", (4, 64)), "b": Entry("F32", (5,)), "c.weight": Entry("Q4_K", (3, 2, 256))}
FUZZED = 5_000


class Bytes:
    """A source in memory that notes what is read."""

    name = "x.gguf"

    def __init__(self, data, size=None):
        self.data, self._size = data, size or len(data)
        self.reads = []

    def size(self):
        return self._size

    def read_at(self, offset, length):
        self.reads.append((offset, length))
        return self.data[offset : offset + length]


def parsed(file):
    return parse_header(Bytes(file.content()))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("alignment", [32, 64, 8])
def test_reads_names_types_shapes_and_texts(version, alignment):
    keys = [
        ("general.architecture", TEXT, "wan"),
        ("general.alignment", U32, alignment),
        ("general.name", TEXT, "ä"),
        ("words", ARRAY, text_array(["x"] * 5)),
        ("numbers", ARRAY, list(range(20))),
    ]
    header = parsed(File(GOOD, keys, version, alignment))
    found = {name: (tensor.dtype, tensor.shape) for name, tensor in header.tensors.items()}
    assert found == {name: (entry.type, entry.shape) for name, entry in GOOD.items()}
    assert [tensor.end - tensor.begin for tensor in header.tensors.values()] == [8 * 34, 20, 6 * 144]
    assert all(tensor.begin % alignment == 0 for tensor in header.tensors.values())
    assert dict(header.metadata) == {
        "general.architecture": "wan",
        "general.alignment": str(alignment),
        "general.name": "ä",
    }
    assert (header.container, header.trailing, header.notices) == ("gguf", 0, ())


def test_agrees_with_the_reference_package(tmp_path):
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "wan")
    writer.add_array("comfy.gguf.orig_shape.c", [6, 16, 1, 2, 2])
    writer.add_string("config", '{"eps": 1e-06}')
    rng = np.random.default_rng(0)
    q8, q4 = gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0
    writer.add_tensor("a.weight", gguf.quants.quantize(rng.standard_normal((6, 96), np.float32), q8), raw_dtype=q8)
    writer.add_tensor("b.bias", rng.standard_normal(6, np.float32))
    writer.add_tensor("c", gguf.quants.quantize(rng.standard_normal((6, 64), np.float32), q4), raw_dtype=q4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    ours, theirs = read_header(path), gguf.GGUFReader(path)
    for tensor in theirs.tensors:
        found = ours.tensors[tensor.name]
        assert (found.dtype, found.begin, found.end - found.begin) == (
            tensor.tensor_type.name, tensor.data_offset, tensor.n_bytes,
        )  # fmt: skip
    assert [tensor.shape for tensor in ours.tensors.values()] == [(6, 96), (6,), (6, 16, 1, 2, 2)]
    assert ours.metadata["config"] == '{"eps": 1e-06}'


def test_shapes_that_writers_change_are_restored():
    wanted = {
        "patch_embedding.weight": (8, 16, 1, 2, 2), "x.vace_patch_embedding.weight": (8, 96, 1, 2, 2),
        "blocks.0.modulation": (1, 6, 8), "head.modulation": (1, 2, 8), "img_emb.emb_pos": (1, 7, 8),
        "img_in.proj.weight": (8, 33, 1, 2, 2), "other.weight": (4, 16),
    }  # fmt: skip
    stored = {
        "patch_embedding.weight": (8 * 16, 1, 2, 2), "x.vace_patch_embedding.weight": (8 * 96, 2, 2),
        "blocks.0.modulation": (6, 8), "head.modulation": (1, 2, 8), "img_emb.emb_pos": (7, 8),
        "img_in.proj.weight": (8, 33, 2, 2), "other.weight": (64,),
    }  # fmt: skip
    tensors = {name: Entry("F32", shape) for name, shape in stored.items()}
    for name in ("patch_embedding.bias", "x.vace_patch_embedding.bias", "img_in.proj.bias"):
        tensors[name] = Entry("F32", (8,))
    header = parsed(File(tensors, [("comfy.gguf.orig_shape.other.weight", ARRAY, [4, 16])]))
    assert {name: header.tensors[name].shape for name in wanted} == wanted


BIG = [("tokenizer.ggml.tokens", ARRAY, text_array(f"<token {number}>" for number in range(150_000)))]


def test_a_large_vocabulary_is_read_in_few_growing_pieces(server):
    content = File(GOOD, [*BIG, ("general.architecture", TEXT, "wan")]).content()
    source = Bytes(content)
    header = parse_header(source)
    assert header.tensors.keys() == GOOD.keys()
    assert len(source.reads) < 8
    assert max(length for _, length in source.reads) <= 4 * 1024 * 1024
    server.files["/x.gguf"] = content
    inspection = inspect(f"{server.url}/x.gguf")
    assert inspection.header.tensors.keys() == GOOD.keys()
    assert len(server.requests) < 8


def published(shapes, type_name="Q4_K", prefix=""):
    """A file as published ones are, by a model's shapes, without its data."""
    tensors = {}
    for name, shape in shapes.items():
        quantized = len(shape) == 2 and shape[-1] % 256 == 0
        tensors[prefix + name] = Entry(type_name if quantized else "F32", tuple(shape), b"")
    return File(tensors)


def test_the_start_of_a_large_remote_file_is_one_request(server, headers):
    file = published(headers["wan_t2v_14B"])
    assert file.size() > 8_000_000_000
    server.files["/x.gguf"] = file.head()
    with pytest.raises(HeaderError, match="truncated"):  # its data are not there
        inspect(f"{server.url}/x.gguf")
    assert len(server.requests) == 1


@pytest.mark.parametrize("prefix", CONTAINERS)
@pytest.mark.parametrize("architecture", ["wan", "pig", None])
def test_families_are_recognized_by_names(headers, prefix, architecture):
    file = published(headers["wan_t2v_1.3B"], prefix=prefix)
    file.keys = [("general.architecture", TEXT, architecture)] if architecture else []
    found = identify(parse_header(Bytes(file.head(), file.size())))
    assert (found.family, found.architectures, found.prefix) == ("wan", ("t2v_1.3B",), prefix)
    assert (found.quantization, found.dtype, set(found.dtypes)) == ("gguf", None, {"q4_k", "fp32"})
    assert found.memory_bytes == 2 * found.parameters


def test_every_family_and_size_is_recognized(headers):
    for label, shapes in headers.items():
        file = published(shapes)
        found = identify(parse_header(Bytes(file.head(), file.size())))
        tensors = {name: Tensor(name, "BF16", tuple(shape), 0, 0) for name, shape in shapes.items()}
        wanted = identify(Header(label, tensors, {}, 0, 0))
        assert (found.family, found.architectures, found.role, found.config, found.parameters) == (
            wanted.family, wanted.architectures, wanted.role, wanted.config, wanted.parameters,
        )  # fmt: skip


@pytest.mark.parametrize("type_name", [block.name for block in TYPES.values() if block.values > 1])
def test_types_that_are_not_decoded_are_recognized(type_name):
    tensors = {"a.weight": Entry(type_name, (2, 256)), "b.weight": Entry("Q8_0", (2, 32))}
    found = identify(parsed(File(tensors)))
    assert (found.quantization == "gguf") == (type_name in DECODED)
    assert found.quantization.startswith("gguf")


@pytest.mark.parametrize("type_name", ["F32", "F16", "BF16"])
def test_a_file_without_blocks_counts_as_16_bits(type_name):
    header = parsed(File({"a.weight": Entry(type_name, (2, 256))}))
    assert identify(header).quantization == "none"


@pytest.mark.parametrize(
    ("name", "quantization", "objection"),
    [
        ("wan2.1-t2v-14b-Q4_K_M.gguf", "gguf", ""), ("Wan2.2-TI2V-5B-Q8_0.gguf", "gguf", ""), ("x-iq4_nl.gguf", "gguf", ""),
        ("x-IQ4_XS.gguf", "gguf", ""), ("x-UD-Q8_K_XL.gguf", "gguf", ""), ("x.gguf", "gguf", ""),
        ("x-BF16.gguf", "none", ""), ("x-F16.gguf", "none", ""), ("x_F32.gguf", "none", ""),
        ("x-IQ3_XXS.gguf", "gguf (IQ1 to IQ3 and others)", "IQ1 to IQ3"),
        ("x-UD-IQ2_M.gguf", "gguf (IQ1 to IQ3 and others)", "IQ1 to IQ3"),
        ("x-mxfp4_moe.gguf", "gguf (IQ1 to IQ3 and others)", "MXFP4"), ("x-TQ1_0.gguf", "gguf (IQ1 to IQ3 and others)", "TQ"),
    ],
)  # fmt: skip
def test_names(name, quantization, objection):
    facts = read_name(name)
    assert (facts.quantization, facts.format) == (quantization, "gguf")
    assert objection in name_objection(name)
    assert bool(name_objection(name)) == bool(objection)


@pytest.mark.parametrize(
    ("name", "quantized", "converted"),
    [
        ("wan-14b-Q4_K_M.gguf", "wan-14b_quanto_bf16_int8.safetensors", "wan-14b_fp16.safetensors"),
        ("wan-UD-Q8_K_XL.gguf", "wan_quanto_bf16_int8.safetensors", "wan_fp16.safetensors"),
        ("wan-F16.gguf", "wan_quanto_bf16_int8.safetensors", "wan_fp16.safetensors"),
        ("wan-iq4_xs-v2.gguf", "wan_quanto_bf16_int8-v2.safetensors", "wan_fp16-v2.safetensors"),
        ("wan.GGUF", "wan_quanto_bf16_int8.safetensors", "wan_fp16.safetensors"),
    ],
)
def test_names_of_files_that_are_made_of_them(name, quantized, converted):
    assert quantized_name(name, "bf16") == quantized
    assert converted_name(name, "fp16") == converted


def raw_key(kind, value, key="k"):
    return File(GOOD, [(key, kind, value)])


def forged(tensors=GOOD, **more):
    return File(tensors, **more).content()


OVERLAPPING = forged()
OVERLAPPING = OVERLAPPING.replace(struct.pack("<IQ", 8, 0), struct.pack("<IQ", 8, 32))


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (forged(version=1), UnsupportedFormat, "version 1"),
        (forged(version=0x03000000), UnsupportedFormat, "big-endian"),
        (forged(version=4), UnsupportedFormat, "version 4"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0), HeaderError, "impossible numbers"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 2**40), HeaderError, "impossible numbers"),
        (forged({}), HeaderError, "no tensors"),
        (raw_key(13, b"").content(), HeaderError, "unknown type 13"),
        (raw_key(TEXT, struct.pack("<Q", 2**60)).content(), HeaderError, "truncated"),
        (raw_key(ARRAY, struct.pack("<IQ", TEXT, 2**40)).content(), HeaderError, "impossibly many texts"),
        (raw_key(ARRAY, struct.pack("<IQ", I32, 2**60)).content(), HeaderError, "truncated"),
        (raw_key(ARRAY, struct.pack("<IQ", ARRAY, 1)).content(), HeaderError, "unknown type 9"),
        (raw_key(TEXT, "x", key=b"k" * 70_000).content(), HeaderError, "impossibly long"),
        (forged(keys=[("k", U32, 1), ("k", U32, 2)]), HeaderError, "occurs twice"),
        (forged(keys=[("general.alignment", U32, 3)]), HeaderError, "not a power of two"),
        (forged(keys=[("general.alignment", U32, 2**20)]), HeaderError, "not a power of two"),
        (forged(keys=[("general.alignment", TEXT, "32")]), HeaderError, "not a power of two"),
        (forged(keys=[("split.count", U32, 3)]), UnsupportedFormat, "split into 3 GGUF files"),
        (forged({"a": Entry(99, (4,), b"")}), UnsupportedFormat, "type 99"),
        (forged({"a": Entry("Q8_0", (4, 33), b"")}), HeaderError, "can't be divided into blocks of Q8_0"),
        (forged({"a": Entry("Q8_0", (), b"")}), HeaderError, "single Q8_0 value"),
        (forged({"a": Entry("F32", (1,) * 9)}), HeaderError, "9 dimensions"),
        (forged({"a": Entry("F32", (2**62, 2**62), b"")}), HeaderError, "impossible shape"),
        (forged({"a": Entry("F32", (0, 2**40, 2**40), b"")}), HeaderError, "impossible shape"),
        (forged({"a": Entry("F32", (1000,), bytes(40))}), HeaderError, "truncated"),
        (forged({b"\xff": Entry("F32", (1,))}), HeaderError, "not UTF-8"),
        (forged({"x" * 2000: Entry("F32", (1,))}), HeaderError, "impossibly long"),
        (forged(keys=[("comfy.gguf.orig_shape.a.weight", ARRAY, [5, 64])]), HeaderError, r"not \[5, 64\]"),
        (forged(keys=[("comfy.gguf.orig_shape.a.weight", ARRAY, [-4, -64])]), HeaderError, r"not \[-4, -64\]"),
        (OVERLAPPING, HeaderError, "overlaps"),
        (forged()[:20], HeaderError, "truncated inside its header"),
        (forged()[:-900], HeaderError, "truncated: "),
    ],
)  # fmt: skip
def test_every_fault_is_named(content, error, words):
    with pytest.raises(error, match=words):
        read_gguf_header(Bytes(content))


def test_a_name_that_occurs_twice():
    content = forged({"a1": Entry("F32", (1,)), "a2": Entry("F32", (1,))}).replace(b"a2", b"a1")
    with pytest.raises(HeaderError, match="occurs twice"):
        parse_header(Bytes(content))


def test_headers_that_are_too_long_are_refused_before_they_are_read():
    start = b"GGUF" + struct.pack("<IQQ", 3, 1, 2) + text("k") + encoded(U32, TEXT) + struct.pack("<Q", 2**27)
    source = Bytes(start, 2**40)
    with pytest.raises(HeaderError, match="longer than 100,000,000 bytes"):
        parse_header(source)
    assert sum(length for _, length in source.reads) < 2**20


def test_bytes_that_belong_to_none_are_notices():
    content = forged({"a": Entry("F32", (8,)), "b": Entry("F32", (8,))})
    apart = content.replace(struct.pack("<IQ", 0, 32), struct.pack("<IQ", 0, 96)) + bytes(64)
    assert "64 bytes between the tensors" in parse_header(Bytes(apart)).notices[0]
    assert "70 bytes follow the data" in parse_header(Bytes(content + bytes(70))).notices[0]


def damaged(random, content, size):
    """A header with bytes changed, numbers made absurd, cut, or pieces of it repeated."""
    raw = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 5))):
        place = random.randrange(4, size)
        kind = random.randrange(5)
        if kind == 0:
            raw[place] = random.randrange(256)
        elif kind == 1:
            number = random.choice((0, 1, 2, 255, 2**16, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1))
            raw[place : place + 8] = struct.pack("<Q", number)
        elif kind == 2:
            del raw[place:]
            return bytes(raw)
        elif kind == 3:
            del raw[place : place + random.randrange(1, 12)]
        else:
            raw[place:place] = raw[place - min(place, random.randrange(40)) : place]
        size = max(6, min(size, len(raw)))
    return bytes(raw)


def test_thousands_of_damaged_headers_give_typed_errors():
    keys = [
        ("general.architecture", TEXT, "wan"), ("general.alignment", U32, 32), ("n", U64, 7),
        ("words", ARRAY, text_array("abc")), ("comfy.gguf.orig_shape.d.weight", ARRAY, [2, 128]),
        ("config", TEXT, json.dumps({"eps": 1})),
    ]  # fmt: skip
    tensors = GOOD | {"d.weight": Entry("Q6_K", (256,)), "patch_embedding.weight": Entry("F16", (4, 4, 2, 2)),
                      "patch_embedding.bias": Entry("F32", (4,)), "e.modulation": Entry("BF16", (6, 8))}  # fmt: skip
    content, size = File(tensors, keys).content(), len(File(tensors, keys).head())
    random = Random(5)
    ends = {"read": 0, "refused": 0}
    slowest, longest = 0.0, 0
    tracemalloc.start()
    for _ in range(FUZZED):
        raw = damaged(random, content, size)
        start = time.process_time()
        try:
            header = parse_header(Bytes(raw))
            identify(header)
            assert all(0 <= tensor.begin <= tensor.end <= len(raw) for tensor in header.tensors.values())
            ends["read"] += 1
        except CheckpointError as error:
            ends["refused"] += 1
            longest = max(longest, len(str(error)))
        slowest = max(slowest, time.process_time() - start)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ends["refused"] > FUZZED / 2
    assert ends["read"] > 100
    assert slowest < 1
    assert longest < 1000
    assert most < 20_000_000
