"""Question analysis: the words it turns on, its names, the kind of answer and the part of the work that it asks for.

Everything here can be read and checked by a person; no model is asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from stilnovo.text.italian import STOP_WORDS, content_words, fold, listed, tokens, words

#: Words that only ask, or say where to look: *come si chiama*, *nel romanzo*.
_EMPTY = listed(
    """
    chiama chiamava chiamano nome anno modo motivo ragione cosa significa vuol succede accade successe accadde viene venne mi
    sai sapresti dimmi puoi trova fa faceva fece qualcuno persona romanzo libro novella racconto poesia opera protagonista
    autore scrittore capitolo dice raccontami parlami
    """
)
_OPENERS = listed(
    """
    chi che cosa dove quando come perche quale quali quanto quanti quanta quante qual in nel nella nei nelle negli nello nell a
    al alla da dal di del della dei con per su sul secondo cos dov com dimmi parlami raccontami descrivi spiega riassumi
    """
)
#: Nothing is asked with these alone.
_GREETINGS = listed(
    "ciao salve buongiorno buonasera grazie prego ok okay bene allora si ehi arrivederci scusa pronto davvero certo capito esatto"
)
_NUMBER = (
    r"(?:\d[\d.]*|due|tre|quattro|cinque|sei|sette|otto|nove|dieci|\w+dici|dicias\w+|diciotto|diciannove"
    r"|(?:vent|trent|quarant|cinquant|sessant|settant|ottant|novant)\w+|\w*cento\w*|mille|\w*mila)"
)
#: Kinds of question: how each is asked, and what a sentence that answers it holds. Folded, apostrophes as spaces.
_KINDS = {
    "number": (r"\bquant[oiae]\b|\bche eta\b", rf"\b{_NUMBER}\b"),
    "when": (
        r"\bquando\b|\bin (?:che|quale) (?:anno|giorno|mese|data)\b",
        r"\b1\d{3}\b|\b(?:genn|febbr)aio\b|\b(?:marzo|aprile|maggio|giugno|luglio|agosto|\w+mbre|ottobre|giorno|mattina|sera|notte|anni)\b",
    ),
    "why": (
        r"\bperche\b|\bcome mai\b|\bper (?:che|quale) (?:motivo|ragione)\b",
        r"\b(?:perche|poiche|giacche|siccome|onde|affinche|per \w+[aei]r[ei])\b",
    ),
    "where": (
        r"\b(?:dove|in (?:che|quale) (?:luogo|localita|citta|paese|via|palazzo|casa|isola))\b",
        r"\b(?:casa|palazz\w+|villa|castell\w+|citta|paese|via|strada|piazza|isola|chiesa|convento|camera|stanza|bottega)\b"
        r"|\b(?:in|a|ad|da|di) (?=[A-Z])",
    ),
    "look": (
        r"\baspetto\b|\bcom (?:e|era) (?!che\b)|\bdescri\w+|\bappare\b|\bche carattere\b",
        r"\b(?:occh\w+|capell\w+|viso|volto|faccia|barba|baffi|naso|fronte|alt[oaie]|bass[oaie]|magr\w+|grass[oaie]|pallid\w+"
        r"|biond\w+|brun[oaie]|bell\w+|brutt\w+|vecchi\w*|giovane|anni|vestit\w+|pelle|spalle|corpo|labbra|bocca|voce)\b",
    ),
    "kin": (
        r"\b(?:parentela|legame|rapporto|parente|imparentat\w+|di chi e figli\w*)\b",
        r"\b(?:padre|madre|figli\w+|fratell\w+|sorell\w+|zi[oa]|cugin\w+|nipot\w+|moglie|marito|spos\w+|nonn[oa]|gemell\w+|cognat\w+)\b",
    ),
    "death": (
        r"\b(?:muor\w+|mori|morte|uccis[oae]|uccid\w+|che fine)\b",
        r"\b(?:mor\w+|uccis\w+|uccid\w+|cadavere|ammazz\w+|assassin\w+|spir[oò]|annega\w+|fucil\w+|avvelen\w+)\b",
    ),
    "work": (
        r"\b(?:mestiere|lavoro|impiego|professione|impiegat\w+)\b",
        r"\b(?:impieg\w+|bottega\w*|mestiere|professore|maestr\w+|medico|avvocat\w+|\w{3,}(?:aio|aro|iere|tore|ista))\b",
    ),
}
#: *Chi è X?* is answered by *X era un …*, *X, il …*.
_BEING = re.compile(r"\bchi (?:e|era|sono|fu) (?!che\b|il\b|la\b|l\b|lo\b|i\b)")
_SAID = (
    r"\bNAME(?: \w+)?(?: \([^)]*\))?,? (?:non )?(?:(?:e|era|fu)\b(?! \w+(?:ndo|to)\b(?! con\b))|(?:il|lo|la|l|un|uno|una) )"
    r"|\b(?:nome|chiamat\w+|dett[oa]) NAME\b"
)
_NAMING = re.compile(r"\bchi\b|\bchiam\w+|\b(?:sopran)?nom[ei]\b")
_NAME_INSIDE = re.compile(r"(?<=[\w,;:'’] )[A-ZÀ-Þ][a-zà-ÿ]{2,}")
_END = re.compile(r"\b(?:(?:alla|in) fine|al termine|da ultimo|ultim[oaie]|finale|conclusione|epilogo)\b")
_BEGINNING = re.compile(r"\b(?:all inizio|in principio|al principio|prim[oa] (?:capitolo|canto|volta)|incipit)\b")


def flat(text: str) -> str:
    """Normalize a text for pattern matching: folded, apostrophes as spaces, on one line."""
    return " ".join(fold(text).replace("'", " ").split())


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
            if self.text[token.start].isupper() and len(token.form) > 1 and token.form not in STOP_WORDS | _GREETINGS
        ]
        if names and names[0] in _OPENERS and names[0] == words(self.text)[0]:
            del names[0]
        return tuple(dict.fromkeys(names))

    @cached_property
    def terms(self) -> tuple[str, ...]:
        """The folded words the question turns on; words that only ask left out."""
        asked = content_words(self.text)
        return tuple([word for word in asked if word not in _EMPTY] or asked or words(self.text))

    @cached_property
    def greets(self) -> bool:
        """Whether it is a greeting, or assent, and nothing more."""
        return bool(content_words(self.text)) and self.empty

    @cached_property
    def empty(self) -> bool:
        """Whether nothing is asked: no word, a greeting, function words alone."""
        return not set(content_words(self.text)) - _GREETINGS

    @cached_property
    def place(self) -> float | None:
        """Where in the work it looks: 0 for the beginning, 1 for the end; None where it does not say."""
        return 1.0 if _END.search(self.folded) else 0.0 if _BEGINNING.search(self.folded) else None

    @cached_property
    def _signs(self) -> tuple[re.Pattern[str], ...]:
        return tuple(re.compile(answer) for asked, answer in _KINDS.values() if re.search(asked, self.folded))

    def sign(self, sentence: str) -> bool:
        """Whether a sentence has what such a question asks for: a number, a time, a reason, another name."""
        folded = flat(sentence)
        if self.names and _BEING.search(self.folded):
            return bool(re.search(_SAID.replace("NAME", self.names[-1]), folded))
        if any(sign.search(folded) for sign in self._signs):
            return True
        return bool(_NAMING.search(self.folded)) and any(
            fold(name) not in self.names for name in _NAME_INSIDE.findall(sentence)
        )
