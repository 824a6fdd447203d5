"""Files of any age to documents: encodings, covers, names; what is no text is refused in one to three lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from stilnovo.errors import InputError
from stilnovo.library.read import MAXIMUM_BYTES, files_in, read
from stilnovo.reading.decoding import decode
from stilnovo.reading.names import Names, direct_name, from_file_name

TEXT = "Capitolo I\n\nIl vetraio più vecchio di Murano perdé la vista; così cominciò a cantare.\n\nCapitolo II\n\nNessuno capì.\n"


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode("utf-8"),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        TEXT.encode("latin-1"),
        TEXT.replace("\n", "\r\n").encode("utf-8"),
        TEXT.replace("\n", "\r").encode("cp1252"),
        TEXT.replace("è", "e\u0300").encode("utf-8"),
    ],
)
def test_every_encoding_and_line_end_gives_the_same_text(data: bytes) -> None:
    assert decode(data, "vetraio.txt") == TEXT


def test_windows_punctuation() -> None:
    assert decode("«Sì…» disse – e l’uscio".encode("cp1252"), "a.txt") == "«Sì…» disse – e l’uscio"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b" \n\t\n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"a\0b" * 50, "binary"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"PK\x03\x04....", "ZIP"),
        (b"\x01\x02\x03" * 30, "control"),
        ("perché così è più città ".encode() * 20 + b"\xe8 strano", "damaged"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "libro.txt").write_bytes(data)
    with pytest.raises(InputError, match=words) as refused:
        read(tmp_path / "libro.txt")
    assert len(str(refused.value).splitlines()) <= 3


def test_too_large_absent_and_unknown_kinds(tmp_path: Path) -> None:
    with (tmp_path / "grande.txt").open("wb") as file:
        file.truncate(MAXIMUM_BYTES + 1)
    (tmp_path / "libro.odt").write_bytes(b"x")
    for name, words in (("grande.txt", "too large"), ("nessuno.txt", "Cannot read"), ("libro.odt", "not read")):
        with pytest.raises(InputError, match=words):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("stem", "names"),
    [
        ("Manzoni-Alessandro_I-promessi-sposi_1840", Names("I promessi sposi", "Alessandro Manzoni", 1840)),
        ("1895_fogazzaro_piccolo_mondo_antico", Names("Piccolo mondo antico", "Fogazzaro", 1895)),
        ("De-Amicis-Edmondo_Cuore_1886", Names("Cuore", "Edmondo De Amicis", 1886)),
        ("D-Annunzio-Gabriele_Il-Piacere_1889", Names("Il Piacere", "Gabriele D'Annunzio", 1889)),
        ("Pirandello-Luigi_L-esclusa_1901", Names("L'esclusa", "Luigi Pirandello", 1901)),
        ("Capuana-Luigi_Il-Marchese-1901", Names("Il Marchese", "Luigi Capuana", 1901)),
        ("commedia", Names("Commedia")),
        ("gutenberg-1342-0", Names("Gutenberg 1342 0")),
    ],
)
def test_names_from_the_file_name(stem: str, names: Names) -> None:
    assert from_file_name(stem) == names


def test_names_from_header_title_page_and_options(tmp_path: Path) -> None:
    file = tmp_path / "1901_prova_vetraio.txt"
    file.write_text("Il vetraio\nAutore: Prova, Ada\nAnno: 1903\n\n" + TEXT, encoding="utf-8")
    document = read(file)
    assert document.names == Names("Il vetraio", "Ada Prova", 1903)
    assert document.text == TEXT.strip("\n")
    assert read(file, Names(title="Altro", year=1910)).names == Names("Altro", "Ada Prova", 1910)
    file.write_text("Ada Prova\n\nIL VETRAIO CIECO\n\n" + TEXT, encoding="utf-8")
    assert read(file).names == Names("Il vetraio cieco", "Ada Prova", 1901)
    assert direct_name("Collodi, Carlo (1826 - 1890)") == "Carlo Collodi"


def test_gutenbergs_header_and_licence_are_taken_off(tmp_path: Path) -> None:
    file = tmp_path / "pg42.txt"
    head = "The Project Gutenberg eBook\n\nTitle: Il vetraio\n\nAuthor: Ada Prova\n\n"
    start, end = (
        "*** START OF THIS PROJECT GUTENBERG EBOOK IL VETRAIO ***",
        "*** END OF THIS PROJECT GUTENBERG EBOOK ***",
    )
    file.write_text(f"{head}{start}\n\nProduced by a volunteer.\n\n{TEXT}\n{end}\nLicence.\n", encoding="utf-8")
    document = read(file)
    assert (document.names.title, document.names.author) == ("Il vetraio", "Ada Prova")
    assert document.text == TEXT.strip("\n")


def test_folders(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("b/due.txt", "uno.txt", "README.md", "foto.jpg"):
        (tmp_path / name).write_text("x")
    assert [path.name for path in files_in([tmp_path])] == ["due.txt", "uno.txt"]
    with pytest.raises(InputError, match="No such file"):
        files_in([tmp_path / "tre.txt"])
    (tmp_path / "vuota").mkdir()
    with pytest.raises(InputError, match="No text in the folder"):
        files_in([tmp_path / "vuota"])
