import json
import random

import pytest

from reeltune.definitions.jsontext import parse_object, replace_value
from reeltune.errors import DefinitionSyntaxError


@pytest.mark.parametrize(
    ("text", "where", "cause"),
    [
        ('{"a": [1, 2,]}', "line 1", "Remove the comma"),
        ('{\n  "a": 1,\n}', "line", "Remove the comma"),
        ("{'a': 1}", "line 1, column 2", "double quotes"),
        ('{"a": 1 // no\n}', "line 1, column 9", "Remove the comment"),
        ('{"a": 1\n "b": 2}', "line 2, column 2", "comma is probably missing"),
        ('{"a": "C:\\models"}', "line 1", "backslash"),
        ('{"a": "x\n"}', "line 1", 'closing "'),
        ('{"a": True}', "line 1, column 7", "lower case"),
        ('{"a": {"b": 1}', "line 1", "ends too early"),
        ("", "line 1", "empty"),
    ],
)
def test_errors_say_where_and_why(text, where, cause):
    with pytest.raises(DefinitionSyntaxError) as caught:
        parse_object(text, "f.json")
    problem = caught.value.problem
    assert problem.file == "f.json"
    assert where in problem.where
    assert cause in problem.fix


def test_repeated_keys_are_warned_of():
    value, warnings = parse_object('{"model": {"URLs": [], "URLs": ["x"]}, "a": 1, "a": 2}', "f.json")
    assert value["a"] == 2
    assert [warning.where for warning in warnings] == ["top level", "model"]


def test_edits_touch_nothing_else():
    text = '{\r\n\t"model" : {"URLs":["a" , "b"],  "name": "\\u00e9", "x": 1.50},\r\n\t"seed":  -1\r\n}\r\n'
    changed = replace_value(text, ("model", "URLs"), ["c"])
    assert json.loads(changed)["model"]["URLs"] == ["c"]
    head, tail = text.split('["a" , "b"]')
    assert changed.startswith(head)
    assert changed.endswith(tail)


def test_new_keys_go_to_the_end_with_the_files_indentation():
    text = '{\n  "model": {\n    "name": "x"\n  }\n}\n'
    assert replace_value(text, ("model", "URLs"), ["u"]) == (
        '{\n  "model": {\n    "name": "x",\n    "URLs": [\n      "u"\n    ]\n  }\n}\n'
    )
    assert json.loads(replace_value("{}", ("model", "URLs"), [])) == {"model": {"URLs": []}}


def test_random_edits_keep_every_other_value():
    rng = random.Random(3)
    for _ in range(200):
        value = {f"k{i}": rng.choice([1, 'x}{"', [1, [2]], {"n": {"m": None}}, True]) for i in range(rng.randint(0, 6))}
        text = json.dumps(value, indent=rng.choice([None, 2, 4, "\t"]))
        key = f"k{rng.randint(0, 8)}"
        assert json.loads(replace_value(text, (key,), ["new"])) == {**value, key: ["new"]}
