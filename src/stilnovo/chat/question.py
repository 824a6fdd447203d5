"""Question analysis: its terms and names, and the expected type of answer.

Everything here can be read and checked by a person; no model is asked. An answer to *quando* holds a date, to *dove* a
place, to *quanti* a number, to *chi è X* says *X era …*: these are the `signs` that lift one sentence above another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from stilnovo.chat.thesaurus import kin
from stilnovo.library.store import Library
from stilnovo.text.italian import STOP_WORDS, content_words, fold, stem, tokens, words

#: What a term counts: the word itself, its stem, a kindred word or a name that stands for it (`aliases`).
SAME, STEM, KIN = 1.0, 0.85, 0.55
#: Rarity is damped by this power: a rare word must not drown the others. Names and numbers weigh half as much again.
DAMPING, NAME_WEIGHT = 0.6, 1.5

_INSIDE_SENTENCE = re.compile(r"[\w,;:)]\W[A-ZÀ-Þ]$")
_NOBODY: frozenset[str] = frozenset()

_NUMBER = (
    r"(?:(?!1[0-9]{3}\b)\d[\d.]*|due|tre|quattro|cinque|sei|sette|otto|nove|dieci|undici|dodici|tredici|quattordici|quindici|sedici"
    r"|diciassette|diciotto|diciannove|(?:vent|trent|quarant|cinquant|sessant|settant|ottant|novant)\w+|\w*cento\w*"
    r"|mille|\w*mila|milion[ei]|una? (?:dozzina|decina|ventina|trentina|centinaio|migliaio))"
)
_MONTH = "gennaio|febbraio|marzo|aprile|maggio|giugno|luglio|agosto|settembre|ottobre|novembre|dicembre"
_DAY = "lunedi|martedi|mercoledi|giovedi|venerdi|sabato|domenica|pasqua|natale|vigilia|primavera|estate|autunno|inverno"
_MONEY = (
    r"(?:lir[ae]|scud[oi]|sold[oi]|fiorin[oi]|zecchin[oi]|ducat[oi]|franc\w+|marenghi|moneta|monete|quattrini|onze)"
)
_PLACE = (
    r"(?:casa|casetta|casuccia|palazzo|villa|castello|torre|citta|paese|paesetto|villaggio|via|strada|piazza|isola|monte"
    r"|valle|riva|chiesa|convento|camera|stanza|bottega|osteria|bosco|campo|giardino|porto|scuola|ospedale|torre|cantina)"
)

_WHERE = r"\b(?:dove|dov|donde|in (?:che|quale) (?:luogo|posto|paese|citta|isola|via))\b"

#: Kind of question → (what it is recognised by, what an answer holds, how much that counts). All folded.
_KINDS: dict[str, tuple[str, str, float]] = {
    "year": (r"\bin (?:che|quale) anno\b", r"\b1[0-9]{3}\b", 0.35),
    "money": (
        r"\bquant[oi] (?:denaro|danaro|soldi|lire|costa|costo|pag\w+)|\bche prezzo|\bquanto \w+ (?:cost|pag)\w+",
        _MONEY,
        0.3,
    ),
    "distance": (
        r"\b(?:che distanza|quant\w+ (?:dista|= lontan|era lontan|= distant)\w*)",
        rf"\b{_NUMBER} (?:migli\w+|chilometr\w+|passi|leghe|metri|braccia|ore|giorni)\b",
        0.35,
    ),
    "number": (r"\b(?:quant[oiae]|che (?:altezza|eta))\b", rf"\b{_NUMBER}\b", 0.2),
    "when": (
        r"\b(?:quando|in (?:che|quale) (?:giorno|mese|data|epoca|stagione)|a che ora)\b",
        rf"\b(?:1[0-9]{{3}}|{_MONTH}|{_DAY}|notte|mattina|sera|alba|tramonto|alle (?:{_NUMBER})|ore)\b",
        0.2,
    ),
    "where": (
        _WHERE,
        rf"\b(?:in|nel|nella|nell|nello|a|al|alla|all|presso|vicino|sul|sulla|dentro|sotto|sopra)\b.{{0,25}}\b{_PLACE}\b",
        0.15,
    ),
    "seat": (
        _WHERE,
        r"\b(?:sorg\w+|situat[oa]|(?:era|=) (?:post[oa]|in|nel|nella|a|al|alla|su|sul|sulla) |giace\w*|abita|abitava|stava di casa"
        r"|in fondo|in cima|sulla cima)\b",
        0.25,
    ),
    "why": (
        r"\b(?:perche|per (?:che|quale|qual) (?:motivo|ragione|causa)|come mai)\b",
        r"\b(?:perche|poiche|giacche|siccome|affinche|onde|a causa|per non|per \w+[aei]r[ei]?|volev\w+ \w+[aei]r[ei]?)\b",
        0.25,
    ),
    "name": (
        r"\b(?:come si chiam\w+|(?:qual (?:=|e|era)|quale|che) (?:il )?(?:vero |altro )?(?:nome|soprannome|nomignolo))\b",
        r"\b(?:chiam\w+|nome|detto|detta|soprannom\w+|nomignolo)\b",
        0.25,
    ),
    "trade": (
        r"\bche (?:mestiere|lavoro|professione)\b",
        r"\b\w{3,}(?:aio|aro|iere|iera|tore|trice|ista|gnolo|naio|ame)\b",
        0.2,
    ),
    "parent": (
        r"\bdi chi (?:=|e|era|fu) (?:il |la |l )?(?:figli\w*|nipote|moglie|marito|sorella|fratello)\b",
        r"\b(?:figli\w*|nipote|moglie|marito|sorella|fratello) (?:di|del|dello|della|dell|d)\b",
        0.35,
    ),
    "words": (
        r"\bche (?:parola|frase|scritta)\b|\bche cosa (?:diceva|dice|c era scritto)\b|\bche significa",
        r"[«“\"]",
        0.1,
    ),
}
_IS = re.compile(r"(?<!\w)(?:è|é|e['’](?=\s))(?!\w)", re.I)
_BEING = re.compile(
    r"^\W*(?:mi (?:sai|sapresti) dire )?(?:chi|che cosa|cosa|che|cos)\W*\s*(?:=|e|era|erano|sono|fu|furono|sarebbe)\s+"
    r"(?P<what>[^?.,]+)",
)
_HEAD = re.compile(
    r"\b(?:quant[oiae]|come si chiam\w+ (?:il |lo |la |l |i |gli |le )?|nome (?:del|dello|della|dell|dei|degli|delle|di) ?)\s*(?P<head>\w+)"
)
_ARTICLE = re.compile(r"^(?:il|lo|la|l|i|gli|le|un|uno|una)['\s]+")


def flat(text: str) -> str:
    """Normalize a text for pattern matching: folded, apostrophes as spaces, on one line, the verb *è* as `=`."""
    return " ".join(fold(_IS.sub("=", text)).replace("'", " ").split())


@dataclass(frozen=True)
class Question:
    """A parsed question."""

    text: str

    @cached_property
    def folded(self) -> str:
        """The question as `flat` makes it."""
        return flat(self.text)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Folded words written with a capital, but for the first word and function words."""
        names = [
            token.form
            for token in tokens(self.text)
            if self.text[token.start].isupper() and len(token.form) > 1 and token.form not in STOP_WORDS
        ]
        if names and names[0] in _OPENERS and names[0] == words(self.text)[0]:
            del names[0]
        return tuple(dict.fromkeys(names))

    @cached_property
    def terms(self) -> tuple[str, ...]:
        """The folded words the question turns on; words that only ask (*nome*, *anno*, *modo*) left out."""
        asked = content_words(self.text)
        return tuple([word for word in asked if word not in _EMPTY] or asked or words(self.text))

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The expected types of answer."""
        return tuple(kind for kind, (asked, _, _) in _KINDS.items() if re.search(asked, self.folded))

    @cached_property
    def person(self) -> bool:
        """Whether it asks for a person."""
        return bool(re.search(r"\bchi\b", self.folded)) and not self.being

    @cached_property
    def being(self) -> tuple[str, ...]:
        """For *chi è X*, *che cos'è X*: the folded words of X, at most four; else nothing."""
        match = _BEING.match(self.folded)
        what = _ARTICLE.sub("", match.group("what").strip()) if match else ""
        parts = [form for form in words(what) if form not in _TITLES or len(what.split()) == 1]
        named = [form for form in parts if form in self.names]
        return tuple(named or parts) if named or len(parts) <= 3 else ()

    @cached_property
    def head(self) -> str:
        """The folded noun that is counted or named: *vittime* in *Quante vittime fece …*, *barca* in *Come si chiama la barca*."""
        match = _HEAD.search(self.folded)
        return match.group("head") if match and match.group("head") not in STOP_WORDS else ""

    def signs(self, sentence: str, original: str) -> float:
        """Score how much a sentence (folded, apostrophes as spaces; and as written) looks like the kind of answer."""
        score = max([_KINDS[kind][2] for kind in self.kinds if re.search(_KINDS[kind][1], sentence)], default=0.0)
        if self.head and ("number" in self.kinds or "name" in self.kinds):
            score += 0.35 * self._headed(original, {stem(self.head)} | kin(stem(self.head)))
        return score

    def _headed(self, original: str, forms: frozenset[str] | set[str]) -> bool:
        """Whether a number, or a name, stands beside the noun (or a kindred word) that the question asks about."""
        sentence = tokens(original)
        beside = [
            other
            for i, token in enumerate(sentence)
            if stem(token.form) in forms and not original[token.start].isupper()
            for other in sentence[max(0, i - 2) : i + 3]
            if other is not token
        ]
        if "number" in self.kinds and any(re.fullmatch(_NUMBER, word.form) for word in beside):
            return True
        return "name" in self.kinds and any(
            original[word.start].isupper() and word.form not in self.names for word in beside
        )


_TITLES = frozenset([
    "don", "donna", "fra", "frate", "padre", "suor", "suora", "signor", "signora", "conte", "contessa",
])  # fmt: skip
_EMPTY = frozenset([
    "chiama", "chiamava", "chiamano", "nome", "soprannome", "nomignolo", "vero", "ad", "riguardo", "anno", "anni", "modo",
    "motivo", "ragione", "cosa", "significa", "significato", "vuol", "davvero", "realta", "quale", "succede", "accade",
    "successe", "accadde", "viene", "venne", "mestiere", "professione", "mi", "sai", "sapresti", "dimmi", "puoi", "distanza",
    "trova", "trovava", "faceva", "fece", "facevano", "fanno", "qualcuno", "vuole", "voleva", "persona",
])  # fmt: skip
_OPENERS = frozenset([
    "chi", "che", "cosa", "dove", "quando", "come", "perche", "quale", "quali", "quanto", "quanti", "quanta", "quante", "qual",
    "in", "a", "di", "da", "con", "per", "su", "secondo", "cos", "dov", "com", "mi", "dimmi", "parlami", "raccontami",
    "descrivi", "spiega", "riassumi", "spiegami", "descrivimi",
])  # fmt: skip


@lru_cache(maxsize=8192)
def _words(text: str) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Folded words; stems; and stems of the words that are no names."""
    every = tokens(text)
    common = (t for t in every if not _INSIDE_SENTENCE.search(text, max(0, t.start - 2), t.start + 1))
    return tuple(frozenset(forms) for forms in (  # type: ignore[return-value]
        (token.form for token in every), (stem(token.form) for token in every), (stem(token.form) for token in common)
    ))  # fmt: skip


class Terms:
    """The terms of one question in one library, with weights that sum to 1."""

    def __init__(self, question: Question, library: Library, titles: frozenset[str] = frozenset()) -> None:
        """`titles` are stems that only say which work is meant: they are no terms, unless there are no others."""
        self.words = [term for term in question.terms if stem(term) not in titles] or list(question.terms)
        self.exact = frozenset(question.names) | {term for term in self.words if term.isdigit()}
        self.stems = {term: stem(term) for term in self.words}
        self._kin = {t: _NOBODY if t in self.exact else kin(form) for t, form in self.stems.items()}
        self.aliases: dict[str, frozenset[str]] = {}
        rarity = library.index.rarity(self.stems.values())
        unknown = {
            term for term, form in self.stems.items() if term not in self.exact and not library.index.occurs(form)
        }
        known = [rarity[form] for term, form in self.stems.items() if term not in unknown]
        # A common word that the library never uses is the asker's way of putting it: it weighs as the others do.
        usual = sum(known) / len(known) if known else 1.0
        weights = [
            (usual if term in unknown else rarity[self.stems[term]]) ** DAMPING
            * (NAME_WEIGHT if term in self.exact else 1.0)
            for term in self.words
        ]
        self.weights = [weight / (sum(weights) or 1.0) for weight in weights]

    @property
    def names(self) -> list[str]:
        """The names and numbers among the terms, the weightiest first."""
        ranked = sorted(zip(self.weights, self.words, strict=True), reverse=True)
        return [term for _, term in ranked if term in self.exact]

    def matches(self, text: str) -> list[float]:
        """Match scores of a text for each term, 0 to 1; names and numbers count only as they stand."""
        forms, stems, common = _words(text)

        def value(term: str) -> float:
            if term in forms:
                return SAME
            if term not in self.exact and self.stems[term] in stems:
                return STEM
            return KIN if self._kin[term] & common or self.aliases.get(term, _NOBODY) & forms else 0.0

        return [value(term) for term in self.words]

    def weigh(self, columns: Iterable[Sequence[float]]) -> float:
        """The weighted sum over the terms of the best value in any column."""
        best = map(max, zip(*columns, strict=True))
        return float(sum(weight * value for weight, value in zip(self.weights, best, strict=True)))
