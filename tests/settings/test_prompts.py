"""From the text of a prompt to single videos: comments, macros, lines, paragraphs, odd characters."""

import contextlib
import time

import pytest

from reeltune import load_catalog
from reeltune.errors import SettingsError
from reeltune.request.build import build_request
from reeltune.request.parse import complete_settings, parse
from reeltune.settings import check_call, parse_assignments, split_prompts, split_videos

MACRO = '! {Animal}="cat","dog","fox" : {Place}="a forest","a city"\nA {Animal} runs through {Place}.\nNight falls on { Place }.'


@pytest.mark.parametrize(
    ("mode", "prompts"),
    [
        ("G", ["a red", "fox", "a lake"]),
        ("W", ["a red", "fox", "a lake"]),
        ("PG", ["a red\nfox", "a lake"]),
        ("PW", ["a red\nfox", "a lake"]),
        ("FG", ["a red\nfox\n\n\na lake"]),
    ],
)
def test_each_mode(mode, prompts):
    assert split_prompts("# notes\n  a red\r\n\t# more\nfox \n\n \na lake\r", mode)[:9] == [
        prompt if mode != "FG" else "a red\nfox \n\n \na lake" for prompt in prompts
    ]


def test_only_line_feeds_end_a_line():
    text = "one\u2028still\u2029one\x0b\x0c\x1c\x85 line"
    assert split_prompts(text, "G") == [text]
    assert split_prompts("a\r\nb\rc", "G") == ["a", "b", "c"]


@pytest.mark.parametrize("text", ["", " \n ", "# only\n#comments", "\n\n"])
@pytest.mark.parametrize("mode", ["G", "PG", "W", "PW", "FG"])
def test_without_a_prompt_there_is_one_empty_video(text, mode):
    assert split_prompts(text, mode) == [""]


def test_macros_take_their_values_in_turn():
    assert split_prompts(MACRO, "G") == [
        "A cat runs through a forest.", "Night falls on a forest.",
        "A dog runs through a city.", "Night falls on a city.",
        "A fox runs through a forest.", "Night falls on a forest.",
    ]  # fmt: skip
    assert split_prompts(MACRO, "PG") == [
        "A cat runs through a forest.\nNight falls on a forest.",
        "A dog runs through a city.\nNight falls on a city.",
        "A fox runs through a forest.\nNight falls on a forest.",
    ]
    two = '! {A}="x","y"\n{A}1\n!{B}="z"\n{B}2\n# {C}\n'
    assert split_prompts(two, "G") == ["x1", "y1", "z2"]
    older = '! {A}="x","y", {B}="1", "2"\n{A}{B}'  # separated by commas, as first versions wrote them
    assert split_prompts(older, "G") == ["x1", "y2"]


@pytest.mark.parametrize(
    "text", ["a {thing} in braces", "!!! an explosion", "! watch out", "{", "a } b {", "50% {} {{x}}"]
)
def test_what_is_no_macro_stays_as_it_is(text):
    assert split_prompts(text, "G") == [text]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('! {A}\n{A}', "Invalid macro"), ('! {A}=x\n{A}', "Invalid macro"), ('! {A}="x" {B}\nz', "Invalid macro"),
        ('! {A}="x"\n{B}', r"doesn't define \{B\}"), ("! {\n", "Invalid macro"),
        ('! {A}=' + ",".join(['"' + "x" * 1000 + '"'] * 1000) + "\n" + "{A}" * 100, "characters"),
    ],
)  # fmt: skip
def test_a_macro_that_can_not_be_expanded_is_an_error_in_words(text, words):
    with pytest.raises(SettingsError, match=words):
        split_prompts(text, "G")


def test_no_prompt_asks_for_more_videos_than_anybody_means():
    with pytest.raises(SettingsError, match="FG for one video"):
        split_videos({"prompt": "a\n" * 20_000})
    with pytest.raises(SettingsError, match="videos"):
        split_videos({"prompt": "a\n" * 20, "repeat_generation": 1000})
    assert len(split_videos({"prompt": "a\n" * 20_000, "multi_prompts_gen_type": "FG"})) == 1


def test_seeds_stay_within_what_a_generator_takes():
    assert [one["seed"] for one in split_videos({"prompt": "a", "seed": 2**63 - 1, "repeat_generation": 2})] == [
        2**63 - 1,
        0,
    ]


def test_lines_that_stand_for_windows_are_videos_where_there_are_none_and_it_is_reported(root):
    definition = load_catalog(root)["nano_t2v"]
    parsed = parse(definition, {"prompt": "a\nb", "multi_prompts_gen_type": "W"})
    assert parsed.notices == ("multi_prompts_gen_type=W: t2v_1.3B makes no windows. Each line is a video.",)
    assert [(request.prompt, request.later_prompts) for request in parsed.requests] == [("a", ()), ("b", ())]
    assert complete_settings(definition, {"prompt": "a", "multi_prompts_gen_type": "W"})[1] == []


@pytest.mark.parametrize(
    ("mode", "prompt", "expected"),
    [
        ("W", "a\n# b\n\nc", ("a", "c")),
        ("W", '! {X}="a","c"\n{X}', ("a", "c")),
        ("PW", "a\nb\n\nc", ("a\nb", "c")),
    ],
)
def test_prompts_of_windows(root, mode, prompt, expected):
    definition = load_catalog(root)["sky_df_1.3B"]
    settings = {
        "prompt": prompt,
        "multi_prompts_gen_type": mode,
        "video_length": 193,
        "repeat_generation": 2,
        "seed": 1,
    }
    parsed = parse(definition, settings)
    assert parsed.notices == ()
    assert [request.seed for request in parsed.requests] == [1, 2]
    for request in parsed.requests:
        assert (request.prompt, *request.later_prompts) == expected
        assert request.windows > 2
        assert request.settings["prompt"] == prompt


@pytest.mark.parametrize(
    ("length", "notice"),
    [(97, "The last 2 prompts are not used: the video has one window."),
     (153, "The last prompt is not used: the video has 2 windows.")],
)  # fmt: skip
def test_more_prompts_than_windows_are_reported(root, length, notice):
    settings = {"prompt": "a\nb\nc", "multi_prompts_gen_type": "W", "video_length": length}
    assert parse(load_catalog(root)["sky_df_1.3B"], settings).notices == (notice,)


def test_text_that_can_not_be_encoded_is_repaired_where_it_is_read(root):
    definition = load_catalog(root)["nano_t2v"]
    for call in (
        check_call(
            {
                "prompt": "a\ud800b",
                "negative_prompt": "\udcff",
                "output_filename": "\ud800",
                "custom_settings": {"\ud800": "\udc00"},
            }
        ),
        parse_assignments(["prompt=a\ud800b", 'custom_settings={"a": "\\ud800"}']),
    ):
        settings, _ = complete_settings(definition, call)
        assert settings["prompt"] == "a\ufffdb"
        request, _ = build_request(definition, settings)
        assert request.prompt == "a\ufffdb"
        str(dict(request.settings)).encode("utf-8")


def test_an_empty_prompt_is_reported(root):
    definition = load_catalog(root)["nano_t2v"]
    for prompt in ("", "  ", "# comment"):
        settings, _ = complete_settings(definition, {"prompt": prompt})
        _, notices = build_request(definition, split_videos(settings)[0])
        assert notices == ["The prompt is empty: the content of the video will be random."]


@pytest.mark.parametrize(
    "text",
    ["! {" + " " * 100_000, '! {A}="x"\n{' + " " * 100_000, "! {A}=" + '"a" ' * 30_000 + "{", "! {A" + " " * 100_000],
)
def test_long_rows_of_spaces_in_macros_take_no_time(text):
    begin = time.process_time()
    with contextlib.suppress(SettingsError):
        assert len(split_prompts(text, "G")[0]) <= len(text)
    assert time.process_time() - begin < 2


def test_spaces_around_names_in_macros_do_not_count():
    assert split_prompts('! { A b } = "x" , "y"\n{A b} and { A b }', "G") == ["x and x", "y and y"]
