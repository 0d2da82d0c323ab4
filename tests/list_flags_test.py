"""Numbers are given with commas or flag by flag."""

import pytest
from absl import flags

from nas_seg import list_flags
from nas_seg.utils.errors import InputError


@pytest.fixture
def parse(monkeypatch):
    """A flag --rates of the default 6, parsed from the words given."""
    values = flags.FlagValues()
    monkeypatch.setattr(flags, "FLAGS", values)
    flags.DEFINE_multi_string("rates", ["6"], "", flag_values=values)
    return lambda *words: values(["tool", *words])


@pytest.mark.parametrize("words", ["--rates=1,2 --rates=3", "--rates=1,2,3", "--rates=1 --rates=2 --rates=3"])
@pytest.mark.parametrize("kind", [int, float])
def test_numbers_with_commas_or_one_by_one_take_the_place_of_the_default(parse, words, kind):
    parse(*words.split())
    numbers = list_flags.read("rates", kind)
    assert numbers == (1, 2, 3) and all(isinstance(number, kind) for number in numbers)


def test_without_the_flag_there_is_the_default(parse):
    parse()
    assert list_flags.read("rates", int, count=1) == (6,)


@pytest.mark.parametrize(
    ("words", "kind", "count", "message"),
    [
        ("--rates=1,nan", float, None, "--rates: expected finite numbers, received 1,nan"),
        ("--rates=inf", float, None, "--rates: expected finite numbers, received inf"),
        ("--rates=3,0", int, 2, "--rates: expected whole numbers of 1 or more, received 3,0"),
        ("--rates=1,b", float, None, "--rates: expected numbers, received 1,b"),
        ("--rates=1,0.5", int, None, "--rates: expected whole numbers, received 1,0.5"),
        ("--rates=", int, None, "--rates: expected whole numbers, received $"),
        ("--rates=1,2,3", int, 2, "--rates: expected 2 numbers, received 1,2,3"),
    ],
)
def test_other_words_are_refused_by_the_name_of_the_flag(parse, words, kind, count, message):
    parse(words)
    with pytest.raises(InputError, match=message):
        list_flags.read("rates", kind, count, least=1 if kind is int else None)


def test_help_shows_the_words_of_the_flag_alone(monkeypatch):
    values = flags.FlagValues()
    monkeypatch.setattr(flags, "FLAGS", values)
    define = flags.DEFINE_multi_string
    monkeypatch.setattr(flags, "DEFINE_multi_string", lambda *args: define(*args, flag_values=values))
    list_flags.define("scales", (0.5, 1), "Scales.")
    assert values["scales"].help == "Scales." and values["scales"].default == ["0.5", "1"]
