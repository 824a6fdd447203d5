"""Which encoding a file of text has is told from what its letters do; what cannot be told is refused by name."""

from __future__ import annotations

import random

import pytest

from stilnovo.errors import InputError
from stilnovo.reading.decoding import decode, decoded

WORDS = ("città", "perché", "più", "però", "così", "là", "è", "né", "tribù", "verità", "un", "casa", "mare", "lontana", "e", "vento",
         "già", "ciò", "lì", "dell'anno", "«Sì»", "porta", "virtù,", "caffè.", "perciò;", "mezzodì")  # fmt: skip
ACCENTED = [word for word in WORDS if not word.isascii()]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252",
                                      "iso8859-15", "cp850", "cp437", "mac_roman"])  # fmt: skip
def test_italian_is_read_in_every_encoding(encoding: str) -> None:
    draw = random.Random(7)
    for _ in range(200):
        words = [*draw.choices(WORDS, k=draw.randrange(4, 60)), *draw.choices(ACCENTED, k=draw.randrange(4, 20))]
        draw.shuffle(words)
        text = " ".join(words)
        assert decode(text.encode(encoding), "a.txt") == text


@pytest.mark.parametrize("encoding", ["cp850", "cp437", "mac_roman", "cp1252"])
@pytest.mark.parametrize("text", ["La città.", "perché no", "Va più in là", "è vero"])
def test_one_letter_may_be_enough(encoding: str, text: str) -> None:
    assert decode(text.encode(encoding), "a.txt") == text


def test_dos_text_with_a_byte_that_windows_takes_for_a_line_end() -> None:
    data = "La città era lontana, perché il mare la teneva di là dal monte; e più d'uno, però, vi tornava.".encode(
        "cp850"
    )
    assert b"citt\x85 " in data
    assert decode(data, "a.txt").startswith("La città era lontana, perché il mare")


def test_what_fits_two_encodings_or_none_is_refused_with_their_names() -> None:
    with pytest.raises(InputError, match=r"cannot be told(?s:.*)mac_roman"):
        decode("La città. ".encode("cp850") * 9 + "Perché? ".encode("mac_roman") * 9, "a.txt")
    with pytest.raises(InputError, match="no Italian"):
        decode("Мой дядя самых честных правил".encode("cp1251"), "a.txt")


def test_letters_that_were_encoded_twice_are_repaired_with_a_warning() -> None:
    text = "perché la città è “bella”, più là"
    twice = text.encode().decode("cp1252", errors="ignore")
    assert decoded(text.encode("utf-8").decode("latin-1").encode(), "a.txt").text == text
    blanks = "perchÃ© la citt\u00c3 \u00c3\u00a8 lontana"  # a no-break space that became a blank
    assert decode(blanks.encode(), "a.txt") == "perché la città è lontana"
    assert "repaired" in decoded(twice.encode(), "a.txt").warnings[0]
    once = "Chi legge Ã© per é ha sbagliato: così è, perché è così."
    assert decoded(once.encode(), "a.txt") == (once, ())
