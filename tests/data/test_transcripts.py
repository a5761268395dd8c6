"""Transcripts to labels: normalised, split into units, numbered."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.data import transcripts
from toolkit.errors import ToolkitError

RIGHT = "\N{RIGHT SINGLE QUOTATION MARK}"
LEFT = "\N{LEFT SINGLE QUOTATION MARK}"
MODIFIER = "\N{MODIFIER LETTER APOSTROPHE}"


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("HE HOPED THERE WOULD BE STEW", "he hoped there would be stew"),  # LibriSpeech
        ('in being "comparatively" modern -- so; (1455)', "in being comparatively modern so 1455"),  # LJSpeech
        ("  don't\tstop\n", "don't stop"),
        (f"don{RIGHT}t don{LEFT}t don{MODIFIER}t", "don't don't don't"),
        ("'quoted' ''twice'' rock 'n' roll's' '", "quoted twice rock n roll's"),
        ("he said''no''", "he said no"),
        ("A_b-c/d.e", "a b c d e"),
        ("3½ km²", "3 km"),
        ("CAFE\N{COMBINING ACUTE ACCENT}", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"),
        # There is a composed form of the small letter alone.
        ("H\N{COMBINING MACRON BELOW}", "\N{LATIN SMALL LETTER H WITH LINE BELOW}"),
        # A mark that no composed letter holds stays with its letter; one without a letter goes.
        ("q\N{COMBINING DIAERESIS}", "q\N{COMBINING DIAERESIS}"),
        ("\N{COMBINING DIAERESIS}q", "q"),
        ("\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}", "i\N{COMBINING DOT ABOVE}"),
        ("你好，世界！", "你好 世界"),
        ("a\0b\udcffc 🎬", "a b c"),
        ("-- … !", ""),
        ("", ""),
    ],
)
def test_normalization_follows_its_rules(text, normalized):
    assert transcripts.normalize(text) == normalized


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("aİß'’ \u0301\u0308Σ_-1½")), max_size=30))
def test_what_is_normalized_stays_as_it_is(text):
    once = transcripts.normalize(text)
    assert transcripts.normalize(once) == once
    assert once == " ".join(once.split())
    assert not any(word.startswith("'") or word.endswith("'") for word in once.split())


def test_units_are_characters_with_the_space_or_words():
    assert transcripts.split("Two, TWO!", "characters") == ["t", "w", "o", " ", "t", "w", "o"]
    assert transcripts.split("Two, TWO!", "words") == ["two", "two"]
    assert transcripts.split("?", "words") == transcripts.split("?", "characters") == []


def test_the_vocabulary_is_sorted_and_does_not_depend_on_the_order():
    given = ["B a", "c, a?", "a'b"]
    assert transcripts.learn(given, "characters") == (" ", "'", "a", "b", "c")
    assert transcripts.learn(given, "words") == ("a", "a'b", "b", "c")
    assert transcripts.learn(given[::-1], "words") == transcripts.learn(given, "words")


def test_too_many_words_are_refused_and_characters_advised():
    words = [f"word{i}" for i in range(transcripts.MAX_WORDS)]
    assert len(transcripts.learn(words, "words")) == transcripts.MAX_WORDS
    with pytest.raises(ToolkitError, match=r"more than 20,000 different words.*set data.transcript_units: characters"):
        transcripts.learn([*words, "one more"], "words")
    assert len(transcripts.learn([*words, "one more"], "characters")) < 30


@pytest.mark.parametrize("units", ["characters", "words"])
def test_a_label_says_the_transcript(units):
    said = ["seven zero two", "It's two -- TWO!"]
    vocabulary = transcripts.learn(said, units)
    for text in said:
        label = transcripts.encode(text, vocabulary, units)
        assert label.dtype == np.int32 and label.min() >= 1 and label.max() <= len(vocabulary)  # 0 is the blank
        back = [vocabulary[number - 1] for number in label]
        assert ("" if units == "characters" else " ").join(back) == transcripts.normalize(text)


def test_units_that_the_vocabulary_lacks_are_left_out():
    assert transcripts.encode("two zulu, one", ("one", "two"), "words").tolist() == [2, 1]
    assert transcripts.encode("zulu", ("one", "two"), "words").tolist() == []
    assert transcripts.Encoder(("one", "two"), "words").unknown("two zulu x") == {"zulu", "x"}


@pytest.mark.parametrize(
    ("label", "frames"), [([], 0), ([1], 1), ([1, 2, 1], 3), ([1, 1], 3), ([2, 2, 2, 1, 1], 8), (list("hello"), 6)]
)
def test_equal_neighbours_take_a_frame_more(label, frames):
    assert transcripts.frames_needed(label) == frames


def test_transcripts_that_cannot_be_labels():
    assert transcripts.unusable("a") is None
    assert transcripts.unusable("…") == "its transcript holds no letter and no digit"
    assert transcripts.unusable("a " * 10_001) == "its transcript has 20,002 characters, at most 20,000 are read"
    piled = "a" + 300 * "\N{COMBINING DIAERESIS}"
    assert transcripts.unusable(piled) == "its transcript has more than 256 combining marks on one character"
