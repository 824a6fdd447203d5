"""The full-text (BM25) index: derived from the stored passages and brought up to date before a search.

tantivy gets text that is already analysed, in two fields that are searched together and whose BM25 scores add up:
`surface` (folded words as they stand, elided articles included: for quotations) and `stem` (Italian stems: for
questions). Measured on Italian, summing the two beats either alone and beats fusing their ranks. A third field, of
little weight, holds the names of work and chapter.

Unusual: nothing is written here when a work is stored. The index knows which works it holds (`works.json`, written
after every commit) and, before a search, compares that with the library: what is missing is added, what is gone or
changed is taken out. So a process killed at any moment loses nothing, and a lost index makes itself anew.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import tantivy

from stilnovo.errors import StilnovoError, reported
from stilnovo.runlog import write_atomic
from stilnovo.text.italian import analyse, stem, tokens

#: Changes whenever the analysis does; an index made by another version is made anew.
VERSION = 1
#: What a word as it stands, and a stem of author, work or section, count beside a stem of the text: the half lets other
#: forms of a word find it (re-inflected words R@10 .934 → .998), and costs quotations nothing, whose phrases count apart.
SURFACE_WEIGHT, CONTEXT_WEIGHT = 0.5, 0.4
# Bytes held before a segment is written: large enough that 100,000 passages make few segments.
_HEAP = 256 * 2**20
_WAIT_SECONDS = 10.0
_STATE = "works.json"

#: A passage as the index wants it: id, text, names of author, work and section.
Row = tuple[int, str, tuple[str, ...]]


@dataclass(frozen=True)
class Sought:
    """A parsed query. Phrases in `demanded` must occur in a passage; everything else is optional.

    Attributes:
        surface: Folded words.
        stem: Stems of the text.
        context: Stems of author, work and section.
        phrase: Folded words that count more when they stand in a row.
        demanded: Phrases of folded words.
    """

    surface: tuple[str, ...] = ()
    stem: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    phrase: tuple[str, ...] = ()
    demanded: tuple[tuple[str, ...], ...] = ()


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_integer_field("id", indexed=True, fast=True)
    builder.add_integer_field("work", indexed=True, fast=True)
    builder.add_text_field("surface", tokenizer_name="letters", index_option="position")
    builder.add_text_field("stem", tokenizer_name="spaces", index_option="freq")
    builder.add_text_field("context", tokenizer_name="spaces", index_option="freq")
    return builder.build()


@lru_cache(maxsize=64)
def context(names: tuple[str, ...]) -> str:
    """Stems of the names of author, work and section."""
    return " ".join(stem(t.form) for name in names for t in tokens(name) if not t.elided)


class Index:
    """The full-text index of one library, in a folder, or in memory where `folder` is None."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._held: dict[int, str] = {}
        self._open()

    def _open(self) -> None:
        if self.folder is not None:
            if self.folder.exists() and any(self.folder.iterdir()) and not self._readable(self.folder):
                shutil.rmtree(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
        self._index = tantivy.Index(_schema(), path=None if self.folder is None else str(self.folder))
        cutters = {"letters": tantivy.Tokenizer.simple(), "spaces": tantivy.Tokenizer.whitespace()}
        for name, cutter in cutters.items():  # they are not stored with the index
            self._index.register_tokenizer(name, tantivy.TextAnalyzerBuilder(cutter).build())
        self._index.config_reader("manual")
        if self.folder is not None and not (self.folder / _STATE).exists():
            self._record({})  # or who opens it next would take an index without works for a broken one
        self._reload()

    def _readable(self, folder: Path) -> bool:
        """Whether the folder holds an index of this version that opens."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            tantivy.Index(_schema(), path=str(folder)).searcher()
            return bool(json.loads((folder / _STATE).read_text(encoding="utf-8"))["version"] == VERSION)
        return False

    def _reload(self) -> None:
        self._index.reload()
        self._searcher = self._index.searcher()
        if self.folder is not None and (self.folder / _STATE).exists():
            state = json.loads((self.folder / _STATE).read_text(encoding="utf-8"))
            self._held = {int(work): digest for work, digest in state["works"].items()}

    def _record(self, works: Mapping[int, str]) -> None:
        """Record beside the index which works it holds."""
        assert self.folder is not None
        state = {"version": VERSION, "works": {str(work): digest for work, digest in works.items()}}
        write_atomic(self.folder / _STATE, json.dumps(state))

    def reset(self) -> None:
        """Empty the index; the next `sync` rebuilds it."""
        if self.folder is not None:
            self._index = self._searcher = None  # type: ignore[assignment]  # lets go of the files
            shutil.rmtree(self.folder, ignore_errors=True)
        self._held = {}
        self._open()

    def sync(
        self,
        works: Mapping[int, str],
        rows: Callable[[int], Iterable[Row]],
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> bool:
        """Bring the index up to date with these works.

        Args:
            works: Work id → a digest of all that is indexed of it.
            rows: The passages of a work.
            progress: Told how many works of how many are indexed.

        Returns:
            False when another process is writing the index: it is then as that process left it last.
        """
        if self._held != works:
            self._reload()
        gone = [work for work, digest in self._held.items() if works.get(work) != digest]
        new = [work for work, digest in works.items() if self._held.get(work) != digest]
        if not gone and not new:
            return True
        writer = self._writer(patient=bool(new))
        if writer is None:
            return False
        # tantivy raises ValueError whatever it was; a full disk most of all.
        fault = reported(
            "The index could not be written.", "The works are stored; run again.",
            errors=ValueError, kind=StilnovoError,
        )  # fmt: skip
        with contextlib.ExitStack() as stack, fault:
            stack.callback(writer.wait_merging_threads)
            # A commit that was not recorded may have left passages of the new ones, too.
            for work in {*gone, *new}:
                writer.delete_documents_by_term("work", work)
            for done, work in enumerate(new, start=1):
                for passage, text, names in rows(work):
                    surface, stems = analyse(text)
                    writer.add_document(
                        tantivy.Document(id=passage, work=work, surface=surface, stem=stems, context=context(names))
                    )
                progress(done, len(new))
            writer.commit()
        self._held = dict(works)
        if self.folder is not None:
            self._record(works)
        self._reload()
        return True

    def _writer(self, patient: bool) -> tantivy.IndexWriter | None:
        """The index's only writer; None while another process has it."""
        until = time.monotonic() + (_WAIT_SECONDS if patient else 1.0)
        while True:
            try:
                return self._index.writer(_HEAP, 1)
            except ValueError as error:
                if "lock" not in str(error).lower():
                    raise StilnovoError("The index cannot be written.", str(error)) from error
                if time.monotonic() > until:
                    return None
                time.sleep(0.05)

    def _term(self, field: str, form: str | int, weight: float = 1.0) -> tuple[tantivy.Occur, tantivy.Query]:
        query = tantivy.Query.term_query(self._index.schema, field, form, index_option="freq")
        return tantivy.Occur.Should, query if weight == 1.0 else tantivy.Query.boost_query(query, weight)

    def _weighed(
        self, field: str, forms: Sequence[str], weight: float = 1.0
    ) -> list[tuple[tantivy.Occur, tantivy.Query]]:
        """Query alternatives for words, weighted by Robertson and Sparck Jones's rarity ln((N - n + 0.5) / (n + 0.5)).

        tantivy's own adds 1 under the logarithm; in a small library that lets a name which stands in every other
        passage count for much. What more than half of the passages have is nearly nothing here.
        """
        total = self._searcher.num_docs
        terms = []
        for form in forms:
            n = min(int(self._searcher.doc_freq(field, form)), total)
            odds = (total - n + 0.5) / (n + 0.5)
            if n:
                terms.append(self._term(field, form, weight * max(math.log(odds), 1e-3) / math.log(1 + odds)))
        return terms

    def _phrase(self, forms: Sequence[str]) -> tantivy.Query:
        if len(forms) == 1:
            return self._term("surface", forms[0])[1]
        return tantivy.Query.phrase_query(self._index.schema, "surface", list(forms))

    def _alternatives(self, sought: Sought) -> list[tuple[tantivy.Occur, tantivy.Query]]:
        wanted = self._weighed("surface", sought.surface, SURFACE_WEIGHT) + self._weighed("stem", sought.stem)
        return wanted + self._weighed("context", sought.context, CONTEXT_WEIGHT)

    def scores(self, sought: Sought, passages: Sequence[int]) -> dict[int, float]:
        """BM25 scores of some passages by the words of a query, its phrases aside; 0 for one that has none of them."""
        if not passages:
            return {}
        among = tantivy.Query.term_set_query(self._index.schema, "id", list(passages))
        only = (tantivy.Occur.Must, tantivy.Query.boost_query(among, 0.0))
        found = self._hits(tantivy.Query.boolean_query([only, *self._alternatives(sought)]), len(passages), ())
        return {passage: found.get(passage, 0.0) for passage in passages}

    def match(self, sought: Sought, limit: int, works: Sequence[int] = ()) -> list[tuple[int, float]]:
        """Passage ids and BM25 scores, best first; restricted to some works, if given."""
        wanted = self._alternatives(sought)
        must = [(tantivy.Occur.Must, self._phrase(phrase)) for phrase in sought.demanded]
        scores: dict[int, float] = {}
        if sought.phrase and not must:
            # Apart from the words: a union of plain terms can skip most of its passages, one with a phrase cannot.
            phrase = (tantivy.Occur.Must, self._phrase(sought.phrase))
            scores = self._hits(tantivy.Query.boolean_query([phrase, *wanted]), limit, works)
        if (wanted or must) and len(scores) < limit:
            scores = self._hits(tantivy.Query.boolean_query([*must, *wanted]), limit, works) | scores
        return sorted(scores.items(), key=lambda hit: (-hit[1], hit[0]))[:limit]

    def _hits(self, query: tantivy.Query, limit: int, works: Sequence[int]) -> dict[int, float]:
        if works:
            within = tantivy.Query.term_set_query(self._index.schema, "work", list(works))
            only = (tantivy.Occur.Must, tantivy.Query.boost_query(within, 0.0))
            query = tantivy.Query.boolean_query([(tantivy.Occur.Must, query), only])
        hits = self._searcher.search(query, limit, count=False).hits
        ids = self._searcher.fast_field_values("id", [address for _, address in hits])
        return {int(passage): float(hit[0]) for passage, hit in zip(ids, hits, strict=True) if passage is not None}

    def mentions(self, form: str, field: Literal["surface", "stem"] = "surface") -> dict[int, list[int]]:
        """Passages that contain a folded word, or a stem, in reading order, by work."""
        count = max(1, int(self._searcher.doc_freq(field, form)))
        hits = self._searcher.search(self._term(field, form)[1], count, count=False).hits
        fields = (self._searcher.fast_field_values(name, [at for _, at in hits]) for name in ("id", "work"))
        passages: dict[int, list[int]] = {}
        for passage, work in sorted((int(passage or 0), int(work or 0)) for passage, work in zip(*fields, strict=True)):
            passages.setdefault(work, []).append(passage)
        return passages

    def rarity(self, stems: Iterable[str]) -> dict[str, float]:
        """Inverse document frequency of stems: ln(1 + (N - n + 0.5) / (n + 0.5)), Robertson's, kept above 0."""
        total = self._searcher.num_docs
        counts = {form: int(self._searcher.doc_freq("stem", form)) for form in stems}
        return {form: math.log(1 + (max(total - n, 0) + 0.5) / (n + 0.5)) for form, n in counts.items()}

    def occurs(self, form: str) -> bool:
        """Whether any passage contains this stem."""
        return bool(self._searcher.doc_freq("stem", form))

    def problems(self, works: Mapping[int, str], rows: Callable[[int], Iterable[Row]]) -> Iterator[str]:
        """Check the index against the library: missing or superfluous works, passages not found under their words."""
        if self._held != works:
            yield "The index does not hold the works of the library."
        stored = 0
        for work in works:
            for passage, text, _ in rows(work):
                stored += 1
                surface, stems = analyse(text)
                words = {("surface", word) for word in surface.split() if word.isalnum()}
                words |= {("stem", form) for form in stems.split()}
                terms = [self._term("id", passage), *(self._term(*word) for word in words)]
                query = tantivy.Query.boolean_query([(tantivy.Occur.Must, term) for _, term in terms])
                if not self._searcher.search(query, 1, count=False).hits:
                    yield f"Passage {passage} is not in the index under its words."
        if (indexed := self._searcher.num_docs) != stored:
            yield f"The index holds {indexed} passages, the library {stored}."
