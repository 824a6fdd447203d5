"""The law of conservation: every word of a file is in the stored text or its apparatus, once, in order, unbroken."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from stilnovo.errors import InputError
from stilnovo.library.conservation import Conservation, compare
from stilnovo.library.read import files_in, read, understand
from stilnovo.library.store import Library
from stilnovo.reading.text_builder import Apparatus

PLAIN = b"Un tempo i Malavoglia\nerano stati nume-\nrosi come i sassi.\n"
STORED = "Un tempo i Malavoglia erano stati numerosi come i sassi."


# The most that rules may find in a file that marks nothing; files where it is more, and why.
RULED_SHARE = 0.03
EXPLAINED = {
    "gutenberg-1012-0.txt",  # Project Gutenberg's licence between its own marks
    "Manzoni-Alessandro_Storia-della-colonna-infame_1840.txt",  # Manzoni's footnotes, numbered by himself
}


def law(data: bytes | str, text: str, apparatus: Sequence[Apparatus] = (), name: str = "prova.txt") -> Conservation:
    return compare(data.encode() if isinstance(data, str) else data, name, text, apparatus)


def page(body: str) -> str:
    return f"<html><head><title>Non conta</title><script>var niente</script></head><body>{body}</body></html>"


def tei(body: str) -> str:
    return f"<TEI><teiHeader><p>Non conta</p></teiHeader><text><body>{body}</body></text></TEI>"


def test_a_hyphen_at_a_line_end_may_be_joined_and_nothing_else_may() -> None:
    assert law(PLAIN, STORED).kept
    assert law(PLAIN, PLAIN.decode()).kept
    assert law(PLAIN, STORED.replace("Malavoglia erano", "Malavogliaerano")).glued == ["Malavogliaerano"]
    assert law(PLAIN, STORED.replace("sassi", "sas si")).split == ["si"]


def test_lost_foreign_and_moved_words_are_named() -> None:
    assert law(PLAIN, STORED.replace("tempo ", "")).lost == ["tempo"]
    assert law(PLAIN, STORED.replace("tempo", "giorno")).problems() == [
        "1 word of the file is not stored: tempo",
        "1 word is stored that the file does not have: giorno",
    ]
    assert law(PLAIN, STORED.replace("i sassi", "sassi i")).moved
    assert not law(PLAIN, STORED.replace("i sassi", "sassi i")).lost
    # The same word twice is one too many.
    assert law(PLAIN, STORED.replace("tempo", "tempo tempo")).foreign == ["tempo"]


def test_what_is_kept_apart_is_not_lost_and_may_have_moved() -> None:
    data = page("<p>Quel ramo<sup>1</sup> del lago rimane<span>3</span>vano.</p><p>1. Il ramo di Lecco.</p>")
    text = "Quel ramo del lago rimanevano."
    apart = [Apparatus("note", "1", 9), Apparatus("page", "3", 25), Apparatus("note", "1. Il ramo di Lecco.", 30)]
    assert law(data, text, apart, "prova.html").kept
    assert law(data, text, [Apparatus("note", "1. Il ramo di Lecco.", 9), *apart[:2]], "a.html").kept
    assert law(data, text, apart[:2], "a.html").lost == ["1", "Il", "ramo", "di", "Lecco"]
    assert law(data, "Quel ramodel lago rimanevano.", [Apparatus("note", "1", 9), *apart[1:]], "a.html").glued
    assert law(
        data, "Quel ramo del lago rimane vano.", [apart[0], apart[1], Apparatus("note", apart[2].text, 31)], "a.html"
    ).split
    assert law(data, text, apart, "a.html").apparatus == {"note": 6, "page": 1}


def test_tags_part_words_or_do_not() -> None:
    assert law(page("<table><tr><td>pare</td><td>Tanto</td></tr></table>"), "pareTanto", name="a.html").glued
    assert law(page("<p>Qu<i>el</i> ramo</p>"), "Quel ramo", name="a.html").kept
    assert law(page("<p>Qu<i>el</i> ramo</p>"), "Qu el ramo", name="a.html").split
    assert law(page("<p>Q</p><p>uel ramo</p>"), "Quel ramo", name="a.html").kept
    assert law(page('<p><img alt="Q">uel ramo</p>'), "Quel ramo", name="a.html").kept
    assert law(page('<p><img alt="Una barca"> Quel ramo</p>'), "Quel ramo", name="a.html").kept
    assert law(tei("<p>casa<lb/>del nespolo</p>"), "casadel nespolo", name="a.xml").glued
    assert law(tei('<p>spe<pb break="no"/>ranza, vi-<lb break="no"/>cino</p>'), "speranza, vicino", name="a.xml").kept
    choice = "<p>per <choice>\n<sic>nongli</sic>\n<corr>non gli</corr></choice> importava</p>"
    apart = [Apparatus("reading", "nongli", 4)]
    assert law(tei(choice), "per non gli importava", apart, "a.xml").kept
    assert law(tei(choice), "per non gli importava", (), "a.xml").lost


def test_the_encoding_does_not_matter() -> None:
    text = "La città era vuota; perché tutti erano fuggiti."
    for encoding in ("utf-8-sig", "cp1252", "cp850", "mac_roman", "utf-16"):
        assert law(text.encode(encoding), text).kept, encoding
    assert law("La citt&agrave; era", "La città era").kept
    named = f'<!DOCTYPE TEI.2 SYSTEM "x.dtd">{tei("<p>La citt&agrave; era</p>")}'
    assert law(named, "La città era", name="a.xml").kept
    assert law(named.replace("&agrave;", "&amacr;"), "La cittā era", name="a.xml").kept
    assert law(tei('<w join="right">l\'</w>\n<w>a</w>\n<w join="left">mico</w>'), "l'amico", name="a.xml").kept


def test_markdown_loses_its_marks_and_nothing_else() -> None:
    data = "---\ntitle: Non conta\n---\n# Capo *primo*\n\n1628. Era[^1] la [data](http://a.it/b).\n\n[^1]: Nota.\n\n| a | b |\n|---|---|\n"
    assert law(data, "Capo primo\n\n1628. Era la data.\n\na b", [Apparatus("note", "Nota.", 31)], "a.md").kept
    assert law(data, "Capo primo\n\nEra la data.\n\na b", [Apparatus("note", "Nota.", 25)], "a.md").lost == ["1628"]


def word_file(body: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("word/document.xml", f'<w:document xmlns:w="w"><w:body>{body}</w:body></w:document>')
        archive.writestr("word/footnotes.xml", '<w:footnotes xmlns:w="w"><w:p><w:t>Nota</w:t></w:p></w:footnotes>')
    return out.getvalue()


def test_deleted_text_and_footnotes_of_word_are_words() -> None:
    data = word_file("<w:p><w:t>i sas</w:t><w:t>si </w:t><w:delText>pochi</w:delText><w:tab/><w:t>qui</w:t></w:p>")
    apart = [Apparatus("deletion", "pochi", 8), Apparatus("note", "Nota", 8)]
    assert law(data, "i sassi qui", apart, "a.docx").kept
    assert law(data, "i sassi qui", apart[:1], "a.docx").lost == ["Nota"]


def test_a_novel_with_a_fault_in_every_line_is_compared_in_linear_time() -> None:
    words = [f"parola{n % 5000}" for n in range(120_000)]
    text = " ".join(words)
    faulty = " ".join(word for n, word in enumerate(words) if n % 11)
    assert len(law(text, faulty).lost) == len(words) - len(faulty.split())
    # Nothing in common, and one word all over.
    assert (
        len(law(" ".join(f"a{n}" for n in range(100_000)), " ".join(f"b{n}" for n in range(100_000))).lost) == 100_000
    )
    assert len(law("a " * 100_000, "b a " * 50_000).foreign) == 50_000


def test_the_check_compares_a_work_with_its_file(tmp_path: Path) -> None:
    with Library.open(tmp_path / "libri.sqlite") as library:
        library.add(understand(PLAIN, "prova.txt"))
        assert library.check() == []
        library.connection.execute("UPDATE sources SET data = ?", (zlib.compress(PLAIN + b"Ancora."),))
        assert [line for line in library.check() if "Ancora" in line]


@pytest.mark.parametrize("folder", ["library", "library_tei", "../cases/library", "../cases/serve/inputs"])
def test_no_word_of_any_file_at_hand_is_lost(shared_data: Path, folder: str) -> None:
    files = files_in([shared_data / folder])
    refused = 0
    for file in files:
        try:
            book = read(file)
        except InputError:  # a scan, a hostile file
            refused += 1
            continue
        result = compare(book.data, file.name, book.text, book.apparatus)
        assert result.problems() == [], file.name
        # What a rule finds where nothing is marked; complete novels only, a small case may be mostly notes.
        if not result.marked and result.words > 20_000:
            assert result.share <= RULED_SHARE or file.name in EXPLAINED, (file.name, result.apparatus)
    assert refused <= len(files) // 2
