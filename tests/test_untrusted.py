import json
import time

import pytest

from reeltune.errors import InvalidJSON
from reeltune.untrusted import MAX_DEPTH, RepeatedKeys, clean_text, decode_text, parse_json


def test_lone_surrogates_are_replaced_wherever_they_stand():
    value = parse_json('{"\\ud800": ["\\udfff", {"a": "x\\ud83dy"}], "ok": "\\ud83d\\ude00"}', "x")
    assert value == {"�": ["�", {"a": "x�y"}], "ok": "😀"}
    assert parse_json('["\\ud800"]', "x") == ["�"]
    assert parse_json('"\\ud800"', "x") == "�"
    json.dumps(value, ensure_ascii=False).encode("utf-8")


def test_text_without_surrogates_is_left_as_it_is():
    assert clean_text("naïve 😀 文字") == "naïve 😀 文字"
    assert clean_text("a\udce4b") == "a�b"
    assert decode_text(b"\xef\xbb\xbfa\xe4b") == "a�b"


def test_numbers_that_fit_no_machine_stay_as_text():
    value = parse_json(
        '{"a": 1%s, "b": 1e999, "c": NaN, "d": -Infinity, "e": 9223372036854775807, "f": -1.5}' % ("0" * 310), "x"
    )
    assert value == {"a": "1" + "0" * 310, "b": "1e999", "c": "NaN", "d": "-Infinity", "e": 2**63 - 1, "f": -1.5}
    assert parse_json("9" * 5000, "x") == "9" * 5000


def test_nesting_is_bounded():
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH, "x")
    for levels in (MAX_DEPTH + 1, 900, 100_000):
        with pytest.raises(InvalidJSON, match="nested"):
            parse_json("[" * levels + "]" * levels, "x")
        with pytest.raises(InvalidJSON, match="nested"):
            parse_json('{"a":' * levels + "1" + "}" * levels, "x")


def test_repeated_keys_are_known_and_cost_no_time():
    value = parse_json('{"a": 1, "b": 2, "a": 3}', "x")
    assert value == {"a": 3, "b": 2}
    assert isinstance(value, RepeatedKeys)
    assert value.repeated == ("a",)
    start = time.process_time()
    parse_json("{" + ",".join('"k": 1' for _ in range(60_000)) + "}", "x")
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("{", "too early"),
        ('{"a": 1,}', "comma"),
        ("{'a': 1}", "double quotes"),
        ('{"a": True}', "lower case"),
        (b"\xff\xfe{}", "UTF-8"),
        ("[" + "1," * 50 + "1]", "at most 20"),
    ],
)
def test_errors_name_the_file_the_place_and_the_cause(text, message):
    with pytest.raises(InvalidJSON, match=message) as caught:
        parse_json(text, "finetunes/x.json", max_bytes=20)
    assert "finetunes/x.json" in str(caught.value)
