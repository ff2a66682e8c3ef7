"""The grammar of LoRA weights, held against a plain reference written from the format's description."""

import pytest

from reeltune.errors import SettingsError
from reeltune.settings.multipliers import StepWeights, add_items, parse_multipliers, weights_of


def reference(item, phase_steps, switch_phase):
    """Step by step, as the format is described: lists spread over all steps, or over those of their phase."""

    def spread(values, steps):
        found, position = [], 0.0
        for _ in range(steps):
            found.append(values[int(position)] if int(position) < len(values) else values[-1])
            position += len(values) / steps
        return found

    parts = [[float(value) for value in part.split(",")] for part in item.split(";")]
    if len(parts) == 1:
        return spread(parts[0], sum(phase_steps))
    while len(parts) < len(phase_steps):
        parts = [parts[0], *parts] if switch_phase == 2 else [*parts, parts[-1]]
    return [value for part, steps in zip(parts, phase_steps, strict=True) for value in spread(part, steps)]


ITEMS = (
    "1", "0", "0.5", "-1", "1e-1", "+.5", "1,0", "0,0.5,1", "1,0.9,0.8,0.7,0.6,0.5,0.4,0.3,0.2,0.1", "1.2,-0.3",
    "1;0", "0;1", "1,1.1;0", "0.9,0.8;1.2", "0.9;0,1,0", "1,0,1;1,0", "0.5;0.5", "2;-1", "1e0;2e-1",
    "0;1;0", "0;0;1", "1;0.5;0.25", "0.9,0.8;1.2;0", "1;0,1;0.5,0.6,0.7", "0,1;0,1;0,1",
)  # fmt: skip
PHASES = ((4,), (30,), (2, 2), (0, 4), (4, 0), (10, 20), (1, 1, 2), (2, 3, 3), (0, 0, 5), (13, 7, 10))


def test_items_equal_the_reference_in_all_phases():
    compared = 0
    for item in ITEMS:
        (weights,) = parse_multipliers(item)
        for phase_steps in PHASES:
            if len(weights.phases) > len(phase_steps):
                continue
            for switch_phase in (1, 2):
                assert list(weights.by_step(phase_steps, switch_phase)) == reference(item, phase_steps, switch_phase)
                compared += 1
    assert compared > 250


def test_a_list_is_spread_over_the_steps():
    (weights,) = parse_multipliers("0,0.5,1")
    assert weights.by_step([9]) == (0, 0, 0, 0.5, 0.5, 0.5, 0.5, 1, 1)


@pytest.mark.parametrize(
    ("text", "phase_steps", "expected"),
    [
        ("1;0 0;1", (2, 2), [(1, 1, 0, 0), (0, 0, 1, 1)]),
        ("0;1;0 0;0;1", (1, 2, 1), [(0, 1, 1, 0), (0, 0, 0, 1)]),
        ("1 0.5 0.5 0.5", (2,), [(1, 1), (0.5, 0.5), (0.5, 0.5), (0.5, 0.5)]),
        ("1,1.1;0", (2, 2), [(1, 1.1, 0, 0)]),
        ("1;0", (1, 1, 1), [(1, 0, 0)]),
        ("1.5 | 0.3", (2,), [(1.5, 1.5), (0.3, 0.3)]),
        ("# of the profile\n\n 1\n#2\n0.5 \n", (1,), [(1,), (0.5,)]),
        ("", (2,), []),
    ],
)
def test_texts_people_write(text, phase_steps, expected):
    assert [weights.by_step(phase_steps) for weights in parse_multipliers(text)] == expected


def test_the_first_list_counts_twice_where_the_second_transformer_comes_with_the_third_phase():
    (weights,) = parse_multipliers("1;0")
    assert weights.by_step((1, 1, 1), 2) == (1, 1, 0)


@pytest.mark.parametrize(
    ("text", "named"),
    [("1 x", "'x'"), ("1,,2", "''"), ("1;", "''"), ("nan", "'nan'"), ("1,inf", "'inf'"), ("-infinity", "'-infinity'"), ("1:2", "'1:2'"),
     ("1e999", "'1e999'"), ("0.8,", "''"), ("1;2;x", "'x'")],
)  # fmt: skip
def test_what_is_no_number_is_named(text, named):
    with pytest.raises(SettingsError) as caught:
        parse_multipliers(text)
    assert f"{named} is not a number" in str(caught.value)


def test_other_mistakes_are_errors():
    with pytest.raises(SettingsError, match="has several"):
        parse_multipliers("1 | 2 | 3")
    with pytest.raises(SettingsError, match="more than 1,000 values"):
        parse_multipliers(",".join(["1"] * 1001))
    with pytest.raises(SettingsError, match="weights for 3 phases, and there are 2"):
        parse_multipliers("1;0;1")[0].by_step((2, 2))


def test_one_item_for_each_lora():
    items = parse_multipliers("0.5 1 2")
    assert weights_of(items, 4) == ((*items, StepWeights()), [])
    fitting, notices = weights_of(items, 1)
    assert fitting == items[:1]
    assert notices == ["loras_multipliers has 3 items for 1 LoRA: the last 2 are not used."]


def test_constant_weights_are_told_apart():
    assert [weights.constant for weights in parse_multipliers("1 1,1 1;1 1;0 0,1")] == [True, True, True, False, False]


@pytest.mark.parametrize("text", ["1001", "-1000.5", "1e39", "0.5 1;2000"])
def test_weights_have_a_limit(text):
    with pytest.raises(SettingsError, match="is not from -1000 to 1000"):
        parse_multipliers(text)
    assert len(parse_multipliers("1000 -1000")) == 2


@pytest.mark.parametrize(
    ("text", "loras", "added"),
    [
        ("", 0, "0.8"),
        ("", 1, "1 0.8"),
        ("0.5", 1, "0.5 0.8"),
        ("0.5", 2, "0.5 1 0.8"),
        ("0.5\n# note", 1, "0.5\n# note\n0.8"),
        ("0.5\r# note", 1, "0.5\r# note\n0.8"),
        ("# note", 1, "# note\n1 0.8"),
        ("1 0.5", 1, "1 0.8"),
        ("1 |", 1, "1 | 0.8"),
        ("1 | 0.5 3", 2, "1 | 0.5 0.8"),
        ("1 2 | 0.5", 1, "1 | 0.8"),
        ("1 |\n# note", 2, "1 |\n# note\n1 0.8"),
    ],
)
def test_items_are_added_for_further_loras(text, loras, added):
    assert add_items(text, loras, ["0.8"]) == added
    items = parse_multipliers(added)
    assert len(items) == loras + 1
    assert items[-1].phases == ((0.8,),)
