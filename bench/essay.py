"""The check of a whole text measured: a made essay of twenty pages over a hundred works, with its truth.

Sentences of real works stand in our own prose, in every typography, with where they come from said in every way: in
parentheses, in footnotes, in the sentence, or not at all. They are as the source has them, or with one to three words exchanged,
or attributed to another author, or made of words that stand together nowhere. Truth is known by how they are made; what chance
makes true is made anew.

    python bench/essay.py [--library FILE] [--seed 20261128] [--quotations 60]

The last line is one JSON object: seconds (opening the library included), and the share of right judgements by class.

Needs: stilnovo.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from stilnovo.chat.essay import check_text
from stilnovo.chat.units import units
from stilnovo.library.read import files_in, read
from stilnovo.library.records import Passage, Work
from stilnovo.library.store import Library
from stilnovo.reading.names import Names
from stilnovo.text.italian import analyse

SEED, QUOTATIONS, PAGES, WORKS = 20261128, 60, 20, 100
#: Words on a page, and in a quotation.
PAGE_WORDS, WORDS = 300, range(7, 31)
DATA = Path(__file__).parents[2] / "shared" / "data"
KINDS = ("verified", "verified", "inexact", "misattributed", "not_found")
# How words are quoted; verse keeps its lines.
LAYOUTS = (
    "«{}»", "“{}”", "„{}“", "‘{}’", '"{}"', "'{}'", "»{}«", "<<{}>>", "``{}''", "*{}*", "\n\n> {}\n\n", "\n\n> «{}»\n\n", "\n\n    {}\n\n",
)  # fmt: skip
# Where it is said that they come from: {q} quotation, {a} author, {s} surname, {t} title.
SAID = (
    "Così si legge in una pagina nota: {q} ({a}, {t}).", "Come scrive {a}: {q}.", "Nelle pagine di {t} si legge {q}.",
    "È {s} a scrivere: {q}, e il lettore se ne ricorda.", "La frase è questa: {q} ({s}, «{t}», cap. II).",
    "{a} lo dice con altre parole. Scrive infatti: {q}.", "Lo dice il narratore: {q}[^{n}].", "Vi si legge: {q} — {a}, {t}\n",
)  # fmt: skip
UNSAID = ("C'è chi ricorda queste parole: {q}.", "Una pagina comincia con {q}, e poi tace.", "Si legge: {q}.")
PROSE = (
    "Chi studia questi testi sa che la lingua muta più in fretta dei sentimenti.",
    "La critica ha discusso a lungo il valore di queste pagine, senza arrivare a un giudizio comune.",
    "Il paesaggio non fa da sfondo, ma prende parte all'azione e ne segna i tempi.",
    "Di «idillio» si può parlare soltanto a patto d'intendersi sul termine.",
    "In queste righe un po' di malinconia si mescola all'ironia, come accade spesso nell'Ottocento.",
    "Lo stile è piano, la sintassi breve, e l'ordine delle parole segue il pensiero.",
    "Negli anni '60 dell'Ottocento il pubblico dei lettori era ancora piccolo.",
    "Il confronto con i modelli stranieri è utile, purché non diventi un gioco di specchi.",
)


class Quoted(NamedTuple):
    """A quotation of the essay: its kind, its words as they stand there, and the place of the words it is made from."""

    kind: str
    words: str
    place: Passage


class MadeEssay(NamedTuple):
    """An essay and the truth about its quotations, in order."""

    text: str
    truth: list[Quoted]


@contextmanager
def hundred_works() -> Iterator[Path]:
    """A library of a hundred works: those at hand, the long ones as two volumes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "library.sqlite"
        with Library.open(path) as library:
            books = [read(file) for file in files_in([DATA / "library", DATA / "library_tei"])]
            books.sort(key=lambda book: -len(book.text))
            for rank, book in enumerate(books):
                if rank >= WORKS - len(books):
                    library.add(book)
                    continue
                half = book.text.find("\n", len(book.text) // 2)
                for number, text in enumerate((book.text[:half], book.text[half:]), start=1):
                    names = Names(f"{book.names.title}, volume {number}", book.names.author, book.names.year)
                    library.add(
                        replace(book, names=names, text=text.strip(), headings=None, lines=None, apparatus=(), data=b"")
                    )
            library.catch_up()
        yield path


def made_essay(library: Library, seed: int = SEED, quotations: int = QUOTATIONS) -> MadeEssay:
    """An essay of about twenty pages with so many quotations, the same for the same library and seed."""
    draw = random.Random(seed)
    sentences = _sentences(library, draw)
    vocabulary = sorted({word for _, text in sentences for word in re.findall(r"\b[a-zàèéìòù]{4,}\b", text)})
    authors = sorted({work.author for work in library.works() if work.author})
    texts = {work.id: " ".join(_forms(library.text(work))) for work in library.works()}
    truth, paragraphs, notes = list[Quoted](), list[str](), list[str]()
    while len(truth) < quotations:
        kind = KINDS[len(truth) % len(KINDS)]
        passage, sentence = draw.choice(sentences)
        work = passage.section.work
        words = _changed(draw, sentence, kind, vocabulary)
        if kind in ("inexact", "not_found") and _stands(words, texts):
            continue
        elsewhere = {work_id: text for work_id, text in texts.items() if work_id != work.id}
        if kind == "misattributed" and (not work.author or _stands(words, elsewhere)):
            continue
        named = _other(draw, library, work, authors) if kind == "misattributed" else work
        layout = draw.choice(LAYOUTS)
        said = kind == "misattributed" or (bool(named.author) and draw.random() < 0.7)
        template = draw.choice(SAID if said else UNSAID)
        if layout.startswith("*") and "{q}:" not in template and ": {q}" not in template:
            layout = LAYOUTS[0]
        prefix = {">": "\n> ", " ": "\n    "}.get(layout.strip("\n")[:1], "\n")
        quoted = layout.format(words.replace("\n", prefix))
        if "[^{n}]" in template:
            notes.append(f"[^{len(notes) + 1}]: {named.author}, *{named.title}*.")
        paragraph = template.format(
            q=quoted, a=named.author, s=named.author.rpartition(" ")[2], t=named.title, n=len(notes)
        )
        truth.append(Quoted(kind, words, passage))
        paragraphs.append(f"{draw.choice(PROSE)} {draw.choice(PROSE)}\n\n{paragraph} {draw.choice(PROSE)}")
    prose = max(0, PAGES * PAGE_WORDS - sum(len(text.split()) for text in paragraphs)) // quotations
    full = []
    for text in paragraphs:
        filling = list[str]()
        while sum(len(line.split()) for line in filling) < prose:
            filling.append(draw.choice(PROSE))
        full += [" ".join(filling), text]
    return MadeEssay("\n\n".join([*full, *notes]) + "\n", truth)


def _sentences(library: Library, draw: random.Random) -> list[tuple[Passage, str]]:
    numbers = [number for (number,) in library.connection.execute("SELECT id FROM passages ORDER BY id")]
    sentences = []
    for passage in library.passages(sorted(draw.sample(numbers, min(1200, len(numbers))))):
        for start, end in units(passage):
            text = passage.text[start:end].strip()
            if len(text.split()) in WORDS and not re.search(
                r"^-|[«»“”\"„‘*_\[\]()<>`—–?!]|(?<!\w)'|'(?!\w)|’(?!\w)|\.\.|…", text
            ):
                sentences.append((passage, text.rstrip(".,;:")))
    return sentences


def _changed(draw: random.Random, sentence: str, kind: str, vocabulary: list[str]) -> str:
    """The sentence as it is quoted: as it stands, with one to three words exchanged, or other words in its rhythm."""
    if kind not in ("inexact", "not_found"):
        return sentence
    pieces = re.split(r"(\s+)", sentence)
    places = [i for i in range(2, len(pieces) - 2, 2) if len(pieces[i]) > 3]
    count = len(pieces) if kind == "not_found" else draw.randint(1, 3 if len(pieces) > 24 else 1)
    for place in draw.sample(places, min(count, len(places))):
        pieces[place] = re.sub(r"\w+", draw.choice(vocabulary), pieces[place], count=1)
    if kind == "not_found":
        pieces[0] = "Invero"
    return "".join(pieces)


def _other(draw: random.Random, library: Library, work: Work, authors: list[str]) -> Work:
    author = draw.choice([author for author in authors if author.split()[-1] != work.author.split()[-1]])
    return draw.choice([other for other in library.works() if other.author == author])


def _forms(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", analyse(text)[0])


def _stands(words: str, texts: dict[int, str]) -> bool:
    wanted = f" {' '.join(_forms(words))} "
    return any(wanted in f" {text} " for text in texts.values())


def measure(path: Path, seed: int = SEED, quotations: int = QUOTATIONS) -> dict[str, Any]:
    """Seconds for the check, opening the library included, and the share of right judgements by class.

    `false_verified` counts quotations that are called verified and are not; it must be 0.
    """
    with Library.open(path) as library:
        essay = made_essay(library, seed, quotations)
    begun = time.perf_counter()
    with Library.open(path) as library:
        checked = check_text(library, essay.text)
        seconds = time.perf_counter() - begun
    by_place = {essay.text.find(quoted.words.split("\n")[0]): quoted for quoted in essay.truth}
    judged = dict[int, str]()
    extra = 0
    for quotation in checked:
        inside = [at for at in by_place if quotation.start <= at < quotation.end]
        extra += not inside
        judged.update(dict.fromkeys(inside, quotation.status))
    right, total, wrong = Counter[str](), Counter[str](), list[tuple[str, str, str]]()
    for at, quoted in by_place.items():
        total[quoted.kind] += 1
        right[quoted.kind] += judged.get(at) == quoted.kind
        if judged.get(at) != quoted.kind:
            wrong.append((quoted.kind, judged.get(at, "missed"), essay.text[max(0, at - 60) : at + 100]))
    return {
        "essay_seconds": round(seconds, 3), "words": len(essay.text.split()), "quotations": sum(total.values()),
        "right": {kind: round(right[kind] / total[kind], 4) for kind in total}, "not_quotations": extra,
        "false_verified": sum(kind != "verified" and status == "verified" for kind, status, _ in wrong),
        "examples_wrong": wrong[:8],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, help="library file (default: a hundred works made of those at hand)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--quotations", type=int, default=QUOTATIONS)
    options = parser.parse_args()
    if options.library is not None:
        print(json.dumps(measure(options.library, options.seed, options.quotations), ensure_ascii=False))
        return
    with hundred_works() as path:
        print(json.dumps(measure(path, options.seed, options.quotations), ensure_ascii=False))


if __name__ == "__main__":
    main()
