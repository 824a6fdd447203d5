"""From dumps and articles to prose: wikitext, boilerplate, benchmark items, near-duplicates."""

from __future__ import annotations

import bz2
import itertools
import random
from pathlib import Path

import numpy as np
import pytest

from stilnovo.data import clean, contamination, duplicates, sources
from stilnovo.data.contamination import ItemIndex
from stilnovo.errors import InputError
from stilnovo.io.rows import blocks, files_of, read_rows

PAGE = """<page><title>{title}</title><ns>{ns}</ns><id>{id}</id>{redirect}<revision><id>9</id><text>{text}</text></revision></page>"""
DUMP = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/"><siteinfo/>{pages}</mediawiki>'


def dump(*pages: str) -> str:
    return DUMP.format(pages="".join(pages))


def page(title: str, text: str, ns: int = 0, redirect: str = "") -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    return PAGE.format(title=title, ns=ns, id=len(title), redirect=redirect, text=escaped)


def test_a_dump_is_read_page_by_page(tmp_path: Path) -> None:
    content = dump(
        page("Po", "Un fiume."), page("Wikipedia:Bar", "x", 4), page("Eridano", "", 0, '<redirect title="Po"/>')
    )
    (tmp_path / "a.xml").write_text(content)
    (tmp_path / "a.xml.bz2").write_bytes(bz2.compress(content.encode()))
    found = list(read_rows(tmp_path / "a.xml"))
    assert found == list(read_rows(tmp_path / "a.xml.bz2"))
    assert [(p["title"], p["namespace"], p["redirect"]) for p in found] == [
        ("Po", 0, False), ("Wikipedia:Bar", 4, False), ("Eridano", 0, True),
    ]  # fmt: skip


def test_memory_does_not_grow_with_a_dump(tmp_path: Path) -> None:
    import tracemalloc

    peaks = []
    for count in (50, 500):
        with (tmp_path / "a.xml").open("w") as file:
            head, tail = DUMP.split("{pages}")
            file.write(head)
            file.writelines(page(f"Voce {n}", "parola " * 4000) for n in range(count))
            file.write(tail)
        tracemalloc.start()
        assert sum(len(block.parts) for block in blocks([tmp_path / "a.xml"], 1 << 16)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (dump(page("Po", "x"), page("Adige", "y"))[:-60], "After page"),
        ("<html></html>", "no MediaWiki dump"),
        ("", "damaged"),
    ],
)
def test_dumps_that_are_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "a.xml").write_text(content)
    with pytest.raises(InputError, match=words):
        list(read_rows(tmp_path / "a.xml"))
    (tmp_path / "b.xml.bz2").write_bytes(bz2.compress(dump(page("Po", "x" * 5000)).encode())[:-20])
    with pytest.raises(InputError, match="damaged"):
        list(read_rows(tmp_path / "b.xml.bz2"))


def test_wikitext_leaves_its_words() -> None:
    text = sources.plain_text(
        "{{Fiume|nome=Po}}\n[[File:Po.jpg|thumb|Il [[Po]]]]\nIl '''Po''' è un [[fiume|corso d'acqua]] dell'[[Italia]]<ref>Una "
        "fonte.</ref>.\n\n== Corso ==\nNasce sul ''Monviso''.\n\n{| class=\"wikitable\"\n! a\n| b\n|}\n* primo\n[[Categoria:Fiumi]]"
    )
    assert "Il Po è un corso d'acqua dell'Italia." in text
    assert "\n\nCorso\n\nNasce sul Monviso." in text
    for gone in ("{{", "[[", "Una fonte", "wikitable", "Categoria", "thumb", "'''", "<ref"):
        assert gone not in text


ARTICLE = """Il Po è il fiume più lungo d'Italia, e scorre da ovest a est nella pianura che porta il suo nome.

Corso

Nasce sul Monviso e sfocia nell'Adriatico con un ampio delta, dopo aver ricevuto molti affluenti da entrambe le rive.

Città

Torino
Piacenza
Cremona
Ferrara

 * Dora Baltea
{| class="wikitable"
|| 652 || km

Note

Bibliografia
 Mario Rossi, Il grande fiume, Milano, 1990.

Altri progetti

Collegamenti esterni
 Il Po, su un sito."""


def test_an_article_loses_appendices_lists_and_leftovers() -> None:
    text, went = clean.article(ARTICLE)
    assert text.startswith("Il Po è il fiume")
    assert text.endswith("da entrambe le rive.")
    assert "\n\nCorso\n\nNasce" in text
    for gone in ("Torino", "Dora", "wikitable", "652", "Note", "Bibliografia", "Rossi", "Altri progetti", "su un sito"):
        assert gone not in text
    assert went["appendix"] == 6
    assert (went["list"], went["markup"]) == (6, 2)


def test_prose_stays_as_it_is() -> None:
    prose = "Prima frase, lunga abbastanza.\n\nUna domanda? Sì: eccola.\n\n«Nota bene», disse, e tacque per un poco."
    assert clean.article(prose) == (prose, {})
    assert clean.is_disambiguation("Mercurio può riferirsi a:")
    assert not clean.is_disambiguation(ARTICLE)


def test_an_appendix_in_the_middle_ends_with_the_next_prose() -> None:
    text, _ = clean.article("Inizio.\n\nNote\n\nuna nota\n\nStoria\n\n" + "La storia prosegue con molte parole. " * 5)
    assert "una nota" not in text
    assert "La storia prosegue" in text


ITEM = "Quale tra i seguenti ormoni stimola la tiroide alla produzione degli ormoni che regolano il metabolismo basale?"


def benchmark(folder: Path, *texts: str) -> list[Path]:
    import json

    (folder / "bench.jsonl").write_text(
        "\n".join(json.dumps({"id": f"q{i}", "question": t}) for i, t in enumerate(texts))
    )
    return [folder / "bench.jsonl"]


def brute(text: str, items: list[str]) -> bool:
    """Word by word: does the text share 13 words in a row with an item, or hold a whole short question?"""
    cut = contamination.words(text)
    for item in items:
        words = contamination.words(item)
        size = min(contamination.NGRAM, len(words))
        if len(words) < (contamination.SHORTEST if "?" in item else contamination.NGRAM):
            continue
        grams = {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}
        if any(tuple(cut[i : i + size]) in grams for i in range(len(cut) - size + 1)):
            return True
    return False


def test_items_are_found_as_by_brute_force(tmp_path: Path) -> None:
    rng = random.Random(3)
    vocabulary = ["a", "b", "c", "d"]  # few words, so that many n-grams nearly match

    def words(low: int, high: int) -> str:
        return " ".join(rng.choice(vocabulary) for _ in range(rng.randint(low, high)))

    items = [words(5, 20) + rng.choice(["?", "."]) for _ in range(60)]
    index = ItemIndex(benchmark(tmp_path, *items))
    texts = [words(0, 60) for _ in range(300)] + [
        f"{words(0, 9)} {rng.choice(items)} {words(0, 9)}" for _ in range(200)
    ]
    found = [index.find(text) is not None for text in texts]
    assert found == [brute(text, items) for text in texts]
    assert 50 < sum(found) < len(texts)


def test_only_the_passage_with_the_item_goes(tmp_path: Path) -> None:
    index = ItemIndex(benchmark(tmp_path, ITEM, "Chi?", "la tiroide e gli ormoni"))
    assert (index.items, index.too_short) == (6, 5)  # three ids, three texts
    hidden = ITEM.upper().replace(" ", ",  ")
    text, hits = index.clean(f"Prima.\nEcco: {hidden} La tirotropina.\nDopo.")
    assert text == "Prima.\nDopo."
    assert [hit.item for hit in hits] == [f"{tmp_path.name}/bench.jsonl:q0"]
    whole = "Nulla di tutto questo."
    assert index.clean(whole) == (whole, [])
    across = (
        ITEM.replace("stimola ", "stimola\n").replace("produzione ", "produzione\n").replace("regolano ", "regolano\n")
    )
    assert index.clean(across)[0] == ""


def test_real_benchmark_items_are_found_in_text(shared_data: Path) -> None:
    import json

    folder = shared_data / "benchmarks" / "arc_it"
    index = ItemIndex(files_of([folder]))
    rows = json.loads((folder / "it_test.json").read_text(encoding="utf-8"))
    long = [row["instruction"] for row in rows if len(contamination.words(row["instruction"])) >= 13][:200]
    assert all(index.find(f"Si legge che {text} e poi altro.") for text in long)
    assert (
        index.find("Il Po è un fiume che scorre da ovest verso est nella pianura e arriva al mare Adriatico.") is None
    )


def jaccard(a: str, b: str) -> float:
    one, two = ({" ".join(w[i : i + 3]) for i in range(len(w) - 2)} for w in (a.lower().split(), b.lower().split()))
    return len(one & two) / len(one | two)


def test_near_duplicates_are_those_of_brute_force(tmp_path: Path) -> None:
    rng = random.Random(1)
    texts = []
    for n in range(40):
        words = [f"parola{rng.randint(0, 5000)}" for _ in range(200)]
        texts.append(" ".join(words))
        for changes in (1, 2, 60):
            changed = list(words)
            for _ in range(changes):
                changed[rng.randrange(200)] = f"altra{n}{rng.random()}"
            texts.append(" ".join(changed))
    order = list(range(len(texts)))
    rng.shuffle(order)
    texts = [texts[i] for i in order]
    files = []
    for number, start in enumerate(range(0, len(texts), 37)):
        files.append(tmp_path / f"{number}.npy")
        np.save(files[-1], duplicates.signatures(texts[start : start + 37]))
    pairs = duplicates.near_duplicates(files, 0.8)
    gone = set(pairs[:, 0].tolist())
    assert all(kept < lost for lost, kept in pairs.tolist())
    for lost, kept in pairs.tolist():
        assert jaccard(texts[lost], texts[kept]) > 0.65  # the estimate of 128 hashes is good to ±0.07
    for a, b in itertools.combinations(range(len(texts)), 2):
        if jaccard(texts[a], texts[b]) > 0.93:
            assert a in gone or b in gone
        if b in gone and not any(jaccard(texts[b], texts[c]) > 0.6 for c in range(b)):
            pytest.fail("a text without an earlier double went")
    assert 60 <= len(gone) <= 80


def test_signatures_of_short_and_equal_texts() -> None:
    found = duplicates.signatures(["", "una", "due parole", "Due  parole"])
    assert found.shape == (4, duplicates.PERMUTATIONS)
    assert (found[2] == found[3]).all()
    assert (found[1] != found[2]).any()
