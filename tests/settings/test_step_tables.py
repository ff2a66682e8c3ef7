"""The weights of LoRAs in each step, held against a plain reference for whole texts, as users and profiles write them.

The reference follows the description of the format: empty lines and lines that begin with `#` are dropped, the rest are
joined by one blank, and a `|` becomes a blank. Items are split on blanks, one for each LoRA in order; missing ones are 1.
`;` separates the lists of phases, `,` the values of a list. A list of L values over N steps: a step has the value at the
integer part of a position that starts at 0 and grows by L/N each step. An item without `;` is spread over all steps. With
fewer lists than phases, the last one is doubled, or the first where the second transformer comes with the third phase.
"""

import pytest

from reeltune import load_catalog
from reeltune.errors import SettingsError
from reeltune.request.loras import loras_of
from reeltune.request.values import Phase
from reeltune.settings.multipliers import parse_multipliers, weights_of

TEXTS = (
    # numbers
    "1", "0", "0.5", "-1", "-0.25", "1e-1", "+.5", "1.", "1E0", "-2.5e-3", "1_0", "0.1", "1e0", "-.5 +1e1",
    # lists
    "0,1", "1,0", "0,0.5,1", "0.9,0.8,0.7,0.6,0.5,0.4,0.3", "1.2,-0.3", "-1,1e-2,0", "1,1,1,1,1,1,1,1,1,0", "0,1 1,0",
    ",".join(str(value / 100) for value in range(60)),
    # phases
    "1;0", "0;1", "1;0 0;1", "1;1", "0.8;1.0", "0.8;0", "1,1.1;0", "1;0,1", "0.9,0.8;1.2", "0.1,0.2,0.3;0.4,0.5", "-1;1e-1",
    "1;0 0.5", "0.5 1;0", "1,0 0;1",
    "0;1;0", "0;0;1", "0;1;0 0;0;1", "1;0.5;0.25", "0.9,0.8;1.2;0", "1;0,1;0.5,0.6,0.7", "0,1;0,1;0,1", "-1;-1e-3;+2",
    "1 1;0 0;0;1", "0;1 0;0;1 1,0.5",
    # several LoRAs, and fewer or more items than there are LoRAs
    "1 0.5 0.5 0.5", "1 0.2 0.5 0.5", "1 1 1 1 1 1", "0.5 1", "1;0 0;1 0.5 1,0 2", "",
    # lines, comments and a profile's part
    "# all of them\n1 0.5", "1\n0.5\n", "\n\n 1 \n\n#2\n 0.5 3\t", "1 | 0.5", "1|0.5", "1;0 0;1|0.7", "|1 0.5", "1 0.5|",
    "# 1 | 2 | 3\n1 | 2", "1;0 0;1\n|\n0.5", "1\r\n0.5\r\n# end", "#", "1  0.5   2",
)  # fmt: skip
LORAS = 3


def reference_items(text):
    """The items of a text: of each, a list of values for each phase."""
    kept = []
    for line in text.split("\n"):
        bare = line.strip()
        if bare == "" or bare[0] == "#":
            continue
        kept.append(bare)
    words = " ".join(kept).replace("|", " ").split(" ")
    return [[[float(one) for one in part.split(",")] for part in word.split(";")] for word in words if word]


def reference_list(values, steps):
    found, position = [], 0.0
    while len(found) < steps:
        found.append(values[int(position)])
        position += len(values) / steps
    return found


def reference_weights(lists, phase_steps, switch_phase):
    """The weight in each step of one LoRA; None where there are more lists than phases."""
    if len(lists) == 1:
        return reference_list(lists[0], sum(phase_steps))
    if len(lists) > len(phase_steps):
        return None
    if len(lists) == 2 and len(phase_steps) == 3:
        lists = [lists[0], lists[0], lists[1]] if switch_phase == 2 else [lists[0], lists[1], lists[1]]
    weights = []
    for values, steps in zip(lists, phase_steps, strict=True):
        weights.extend(reference_list(values, steps))
    return weights


def splits(steps):
    """Numbers of steps of one, two and three phases, some of which have none."""
    few, half = steps // 4, steps // 2
    return [(steps,), (few, steps - few), (steps, 0), (few, half - few, steps - half), (0, half, steps - half)]


def test_there_are_texts_of_every_kind():
    assert len(set(TEXTS)) >= 60
    counts = {len(reference_items(text)) for text in TEXTS}
    assert counts >= {0, 1, 2, 3, 4, 5, 6}  # fewer than, as many as and more than the LoRAs
    assert {len(lists) for text in TEXTS for lists in reference_items(text)} == {1, 2, 3}


@pytest.mark.parametrize("text", TEXTS)
def test_every_step_has_the_weight_of_the_reference(text):
    expected = reference_items(text)
    items, notices = weights_of(parse_multipliers(text), LORAS)
    assert len(items) == LORAS
    assert bool(notices) == (len(expected) > LORAS)
    expected = [*expected, *[[[1.0]]] * LORAS][:LORAS]
    compared = 0
    for steps in range(1, 51):
        for phase_steps in splits(steps):
            for switch_phase in (1, 2):
                for item, lists in zip(items, expected, strict=True):
                    weights = reference_weights(lists, phase_steps, switch_phase)
                    if weights is None:
                        with pytest.raises(SettingsError, match=f"for {len(lists)} phases, and there are"):
                            item.by_step(phase_steps, switch_phase)
                    else:
                        assert list(item.by_step(phase_steps, switch_phase)) == weights
                        compared += 1
    assert compared >= LORAS * 50 * 2 * 2  # with three phases every item has its weights


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("1 x", "'x'"), ("0.5 1,a,2", "'1,a,2'"), ("1;b", "'1;b'"), ("1,,2", "'1,,2'"), ("1;", "'1;'"), (";1", "';1'"),
        ("1 0.5,", "'0.5,'"), (",", "','"), (";", "';'"), ("nan", "'nan'"), ("1 NaN;0", "'NaN;0'"), ("1,inf", "'1,inf'"),
        ("-Infinity", "'-Infinity'"), ("1e999", "'1e999'"), ("1:2", "'1:2'"), ("0.5 0x10", "'0x10'"), ("1;2;3;y", "'1;2;3;y'"),
        ("1 0.5 # mine", "'#'"), ("# fine\n1\nz,1", "'z,1'"), ("1 | w;0", "'w;0'"), ("--1", "'--1'"), ("1e", "'1e'"),
        ("1/2", "'1/2'"), ("(1)", "'(1)'"), ("1;0;q 1", "'1;0;q'"), ("50%", "'50%'"),
    ],
)  # fmt: skip
def test_wrong_items_are_refused_by_name(text, token):
    with pytest.raises(SettingsError, match="loras_multipliers") as caught:
        parse_multipliers(text)
    assert token in caught.value.message
    assert caught.value.hint


def test_several_profiles_are_refused():
    with pytest.raises(SettingsError, match="several") as caught:
        parse_multipliers("1 | 0.5 | 2")
    assert "1 | 0.5 | 2" in caught.value.message


@pytest.mark.parametrize(
    ("text", "phases"), [("1;0;0;1", (1, 1, 1)), ("0;1;0", (2, 2)), ("1;0", (4,)), ("0.5,1;0", (4,))]
)
def test_more_lists_than_phases_are_refused_with_the_item(text, phases):
    (item,) = parse_multipliers(text)
    with pytest.raises(SettingsError) as caught:
        item.by_step(phases)
    assert text in caught.value.message
    assert "guidance_phases" in caught.value.hint


# --- the weights of a video --------------------------------------------------------------------------------------------


def loras(root, names, text, phase_steps, *, switch_phase=1):
    """The weights of a video's LoRAs in each step, and the notices."""
    first, phases = 0, []
    for steps in phase_steps:
        phases.append(Phase(first, steps, "transformer", 1.0))
        first += steps
    settings = {"activated_loras": names, "loras_multipliers": text, "model_switch_phase": switch_phase}
    notices = []
    found = loras_of(load_catalog(root)["nano_t2v"], settings, phases, notices)
    assert [lora.source for lora in found] == names
    return [list(lora.weights) for lora in found], notices


@pytest.mark.parametrize(
    ("text", "phase_steps", "switch_phase", "expected"),
    [
        ("1;0 0;1", (2, 2), 1, [[1, 1, 0, 0], [0, 0, 1, 1]]),
        ("0;1;0 0;0;1", (1, 3, 4), 2, [[0, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1]]),
        ("1 0.5 0.5 0.5", (3,), 1, [[1] * 3, [0.5] * 3, [0.5] * 3, [0.5] * 3]),
        ("1,1.1;0", (3, 2), 1, [[1, 1, 1.1, 0, 0]]),
        ("1;0", (1, 1, 2), 2, [[1, 1, 0, 0]]),
        ("1;0", (1, 1, 2), 1, [[1, 0, 0, 0]]),
        ("0,0.5,1", (4, 5), 1, [[0, 0, 0, 0.5, 0.5, 0.5, 0.5, 1, 1]]),
    ],
)
def test_texts_of_published_files(root, text, phase_steps, switch_phase, expected):
    names = [f"{number}.safetensors" for number in range(len(expected))]
    assert loras(root, names, text, phase_steps, switch_phase=switch_phase) == (expected, [])


def test_missing_items_are_one_and_surplus_ones_are_reported(root):
    weights, notices = loras(root, ["a", "b"], "0.5", (1, 1))
    assert (weights, notices) == ([[0.5, 0.5], [1, 1]], [])
    weights, notices = loras(root, ["a", "b"], "0.5 0 2 3", (2,))
    assert weights == [[0.5, 0.5], [0, 0]]
    assert notices == ["loras_multipliers has 4 items for 2 LoRAs: the last 2 are not used."]
    assert loras(root, [], "1", (2,))[1] == ["loras_multipliers has 1 item for 0 LoRAs: the last one is not used."]
