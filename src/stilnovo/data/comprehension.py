"""Encyclopaedia rows read as questions and answers too: each document becomes a conversation about its own text.

A model that learns plain texts alone forgets how to answer; questions on the same texts keep that alive (AdaptLLM: Cheng et
al. 2023, arXiv 2309.09530, "Adapting Large Language Models via Reading Comprehension"). The templates here are ours, in
Italian. Nothing is generated: every answer is a part of the text, its title, or a yes or no that the text decides, so
that each can be checked (the tests do). Texts are noisy; only whole, well-formed sentences are asked about.

What is drawn depends on the seed and the document's place alone.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from stilnovo.data.conversations import Conversation
from stilnovo.data.sources import Document
from stilnovo.io.bad_rows import BadRow, Tally
from stilnovo.text.italian import STOP_WORDS, sentences
from stilnovo.text.template import Message

EXCERPT_CHARS = 1800  # of a long document, a run of whole sentences of about this length is read
FEWEST_SENTENCES = 4
MOST_QUESTIONS = 4
CONTINUED = 0.2  # of the documents, this share is a text to go on with instead of questions
BLANK = "_____"

_WELL_FORMED = re.compile(r"[«\"“]?[A-ZÀ-Ý0-9][^\n]{38,298}[.!?][»\"”]?")
_WORD = re.compile(r"(?<![\w'’-])[a-zà-ÿ]{5,}(?![\w'’-])")
_NUMBER = re.compile(r"(?<![\w.,'’/-])\d+(?:[.,]\d+)*(?![\w/°'’-]|[.,]\d)")
# A whole name: no part of a longer one, which goes on with a capital or a figure or is not of these letters alone.
_NAME = re.compile(r"(?<= )[A-ZÀ-Ý][a-zà-ÿ]+(?: [A-ZÀ-Ý][a-zà-ÿ]+)*(?![\w'’-]| [^\Wa-zà-ÿ])")
_BEFORE_A_NAME = re.compile(r"[a-zà-ÿ'’]+[,;]?")
# Where something was taken out or two pieces were joined: "(, )", " ,", "::", a stop or a colon amid a sentence, mark-up.
_TORN = re.compile(r"[<>{}]|\(\s*[,;)]| [,;.]|[:;,]{2}|\.\.|[.!?] [a-zà-ÿ]|: [A-ZÀ-Ý]")
_LETTERS = "ABCD"


@dataclass(frozen=True)
class Asked:
    """One question about a text. `kind` is a key of `QUESTIONS`; `source` is the sentence that it was made of, if any."""

    kind: str
    question: str
    answer: str
    source: str = ""


@dataclass(frozen=True)
class Excerpt:
    """What is read: whole sentences of one document that follow each other.

    Attributes:
        whole: Whether it begins where the document begins.
        sentences: All of them, in order.
        good: Places of those that are well formed: what may be asked about.
        foreign: A well-formed sentence of another document, empty when there is none.
    """

    title: str
    text: str
    whole: bool
    sentences: tuple[str, ...]
    good: tuple[int, ...]
    foreign: str = ""


Maker = Callable[[Excerpt, random.Random], Asked | None]


def comprehension(
    documents: Sequence[Document], seed: int, share: float, tally: Tally | None = None
) -> list[Conversation]:
    """Conversations about a share of the documents, drawn by seed, one each, in the documents' order.

    Args:
        documents: Texts with a title or without.
        share: Of all documents; those that are drawn but too short are left out.
        tally: Counts what was taken and what was left, with its place.
    """
    tally = Tally() if tally is None else tally
    chosen = sorted(random.Random(f"{seed}").sample(range(len(documents)), round(share * len(documents))))
    found = []
    for number in chosen:
        rng = random.Random(f"{seed} {number}")
        document = documents[number]
        foreign = _foreign(documents, number, rng)
        excerpt = excerpt_of(document, rng, foreign)
        if excerpt is None:
            tally.leave(
                f"document {number + 1}", BadRow("too short for questions", document.title or document.text[:40])
            )
            continue
        turns = _continuation(excerpt, rng) if rng.random() < CONTINUED else _conversation(excerpt, rng)
        if turns is None:
            tally.leave(f"document {number + 1}", BadRow("nothing to ask about", document.title or document.text[:40]))
            continue
        found.append(Conversation(f"comprehension-{document.id}", turns))
        tally.taken += 1
    return found


def excerpt_of(document: Document, rng: random.Random, foreign: str = "") -> Excerpt | None:
    """What is read of a document: all of it, or a run of sentences of a long one; None when too few are well formed."""
    text = document.text.strip()
    spans = sentences(text)
    first = 0
    if len(text) > EXCERPT_CHARS and rng.random() < 0.5:
        last_start = max(0, sum(start < len(text) - EXCERPT_CHARS for start, _ in spans) - 1)
        first = rng.randint(0, last_start)
    begin = spans[first][0] if spans else 0
    kept = [span for span in spans[first:] if span[1] - begin <= EXCERPT_CHARS]
    parts = tuple(text[start:stop] for start, stop in kept)
    good = tuple(at for at, part in enumerate(parts) if _is_good(part) and parts.count(part) == 1)
    if len(good) < FEWEST_SENTENCES:
        return None
    shown = text[begin : kept[-1][1]]
    return Excerpt(document.title, shown, first == 0, parts, good, "" if foreign in text else foreign)


def ask(excerpt: Excerpt, rng: random.Random) -> list[Asked]:
    """Up to `MOST_QUESTIONS` questions of different kinds, and about different sentences, in random order."""
    kinds = list(QUESTIONS)
    rng.shuffle(kinds)
    asked: list[Asked] = []
    used: set[str] = set()
    for kind in kinds:
        if len(asked) == MOST_QUESTIONS:
            break
        if kind in _GIVE_AWAY and any(one.kind in _GIVE_AWAY for one in asked):
            continue
        found = QUESTIONS[kind](excerpt, rng)
        if found is not None and (not found.source or found.source not in used):
            asked.append(found)
            used.add(found.source)
    return asked


def _conversation(excerpt: Excerpt, rng: random.Random) -> tuple[Message, ...] | None:
    asked = ask(excerpt, rng)
    if len(asked) < 2:
        return None
    opening = rng.choice(_OPENINGS)
    turns = [
        Message("user", f"{opening}\n\n{excerpt.text}\n\n{asked[0].question}"),
        Message("assistant", asked[0].answer),
    ]
    for one in asked[1:]:
        turns += [Message("user", one.question), Message("assistant", one.answer)]
    return tuple(turns)


def _continuation(excerpt: Excerpt, rng: random.Random) -> tuple[Message, ...] | None:
    """The beginning of the text, and its next two sentences as they stand there, where those are well formed."""
    pairs = [at for at in excerpt.good if at >= 2 and at + 1 in excerpt.good]
    if not pairs:
        return None
    at = rng.choice(pairs)
    end = _place(excerpt, at)
    stop = _place(excerpt, at + 1) + len(excerpt.sentences[at + 1])
    request = rng.choice(_CONTINUE)
    return (
        Message("user", f"{request}\n\n{excerpt.text[:end].rstrip()}"),
        Message("assistant", excerpt.text[end:stop]),
    )


def _place(excerpt: Excerpt, number: int) -> int:
    """Where a sentence begins in the text."""
    at = 0
    for sentence in excerpt.sentences[:number]:
        at = excerpt.text.index(sentence, at) + len(sentence)
    return excerpt.text.index(excerpt.sentences[number], at)


def _is_good(sentence: str) -> bool:
    """Whether a sentence is a whole and plain one."""
    even = sentence.count('"') % 2 == 0
    paired = all(sentence.count(a) == sentence.count(b) for a, b in ("()", "[]", "«»", "“”"))
    whole = _WELL_FORMED.fullmatch(sentence) and not _TORN.search(sentence)
    return bool(whole) and even and paired and sentence.count(" ") >= 5


def _foreign(documents: Sequence[Document], number: int, rng: random.Random) -> str:
    """A well-formed sentence of another document, looked for in three of them."""
    for _ in range(3 if len(documents) > 1 else 0):
        other = (number + rng.randrange(1, len(documents))) % len(documents)
        text = documents[other].text[: 2 * EXCERPT_CHARS]
        good = [text[a:b] for a, b in sentences(text) if _is_good(text[a:b])]
        if good:
            return rng.choice(good)
    return ""


def _title(excerpt: Excerpt, rng: random.Random) -> Asked | None:
    if not excerpt.title or not excerpt.whole or excerpt.text.startswith(f"{excerpt.title}\n"):
        return None
    return Asked("title", rng.choice(_TITLE), excerpt.title)


def _definition(excerpt: Excerpt, rng: random.Random) -> Asked | None:
    """What the title's thing is: the first sentence, when it names it."""
    first, title = excerpt.sentences[0], excerpt.title
    named = title and re.match(
        rf"(?:(?:Il|Lo|La|I|Gli|Le|Un|Uno|Una) |L['’]|Un['’])?{re.escape(title)}\b", first, re.IGNORECASE
    )
    if not excerpt.whole or not named or 0 not in excerpt.good:
        return None
    return Asked("definition", rng.choice(_DEFINITION).format(title), first, first)


def _names(sentence: str) -> list[re.Match[str]]:
    """Names within a sentence: whole ones, not a part of a longer one that is spelt otherwise."""
    return [
        match for match in _NAME.finditer(sentence)
        if _BEFORE_A_NAME.fullmatch(sentence[: match.start()].split()[-1])
    ]  # fmt: skip


def _filled(kind: str, find: Callable[[str], Iterable[re.Match[str]]], phrasings: Sequence[str]) -> Maker:
    """A question for what was taken out of a sentence: something that stands in it once."""

    def make(excerpt: Excerpt, rng: random.Random) -> Asked | None:
        places = list(excerpt.good)
        rng.shuffle(places)
        for at in places:
            sentence = excerpt.sentences[at]
            found = [
                match for match in find(sentence)
                if sentence.count(match.group()) == 1 and match.group().lower() not in STOP_WORDS
            ]  # fmt: skip
            if found:
                gone = rng.choice(found)
                holed = f"{sentence[: gone.start()]}{BLANK}{sentence[gone.end() :]}"
                return Asked(kind, rng.choice(phrasings).format(holed), gone.group(), sentence)
        return None

    return make


def _next(excerpt: Excerpt, rng: random.Random) -> Asked | None:
    """Which of four sentences of the text follows a given one."""
    pairs = [at for at in excerpt.good if at + 1 in excerpt.good]
    if not pairs:
        return None
    at = rng.choice(pairs)
    others = [other for other in excerpt.good if other not in (at, at + 1)]
    shown = [at + 1, *rng.sample(others, min(len(others), len(_LETTERS) - 1))]
    if len(shown) < 3:
        return None
    rng.shuffle(shown)
    options = "\n".join(f"{letter}. {excerpt.sentences[n]}" for letter, n in zip(_LETTERS, shown, strict=False))
    right = f"{_LETTERS[shown.index(at + 1)]}. {excerpt.sentences[at + 1]}"
    question = f"{rng.choice(_NEXT).format(excerpt.sentences[at])}\n\n{options}"
    return Asked("next", question, right, excerpt.sentences[at])


def _first(excerpt: Excerpt, rng: random.Random) -> Asked | None:
    """Which of two sentences comes first."""
    one, two = sorted(rng.sample(excerpt.good, 2))
    shown = [excerpt.sentences[one], excerpt.sentences[two]]
    rng.shuffle(shown)
    question = f"{rng.choice(_FIRST)}\n\n– {shown[0]}\n– {shown[1]}"
    return Asked("first", question, excerpt.sentences[one], excerpt.sentences[one])


def _statement(excerpt: Excerpt, rng: random.Random) -> Asked | None:
    """Whether a sentence stands in the text: one of its own, or one of another document."""
    own = rng.random() < 0.5 or not excerpt.foreign
    sentence = excerpt.sentences[rng.choice(excerpt.good)] if own else excerpt.foreign
    return Asked("statement", rng.choice(_STATEMENT).format(sentence), rng.choice(_YES if own else _NO), sentence)


def _mention(excerpt: Excerpt, rng: random.Random) -> Asked | None:
    """The sentence that names somebody or something that no other sentence names."""
    places = list(excerpt.good)
    rng.shuffle(places)
    for at in places:
        sentence = excerpt.sentences[at]
        once = [m.group() for m in _names(sentence) if excerpt.text.count(m.group()) == 1]
        if once:
            return Asked("mention", rng.choice(_MENTION).format(rng.choice(once)), sentence, sentence)
    return None


_GIVE_AWAY = ("title", "definition")  # each would answer the other

_OPENINGS = (
    "Leggi questo testo.", "Ecco un brano di enciclopedia.", "Leggi con attenzione il brano che segue.",
    "Ti do un testo: poi ti farò qualche domanda.", "Considera il testo seguente.", "Parti da questo testo.",
)  # fmt: skip
_CONTINUE = (
    "Continua questo testo con le due frasi che seguono.", "Come va avanti questo brano? Scrivi le prossime due frasi.",
    "Prosegui il testo per altre due frasi.", "Il brano si interrompe: riprendilo e scrivi due frasi.",
)  # fmt: skip
_TITLE = (
    "Di che cosa parla questo testo?", "Quale titolo daresti a questo testo?", "Qual è l'argomento del testo?",
    "A quale voce di enciclopedia appartiene questo testo?", "Indica in poche parole il soggetto del brano.",
)  # fmt: skip
_DEFINITION = (
    "Che cosa dice il testo, in una frase, di «{}»?", "Con quale frase il testo presenta «{}»?",
    "Riporta la frase che introduce «{}».", "Come comincia la voce «{}»?",
)  # fmt: skip
_MISSING_WORD = (
    "Quale parola manca in questa frase del testo?\n\n{}", "Completa la frase con la parola del testo.\n\n{}",
    "Nella frase che segue ho tolto una parola: quale?\n\n{}", "Riempi lo spazio vuoto come nel testo.\n\n{}",
)  # fmt: skip
_MISSING_NUMBER = (
    "Quale numero manca in questa frase?\n\n{}", "Inserisci il numero che dà il testo.\n\n{}",
    "Secondo il testo, quale numero va al posto dello spazio?\n\n{}", "Completa con il numero giusto.\n\n{}",
)  # fmt: skip
_MISSING_NAME = (
    "Quale nome manca in questa frase?\n\n{}", "Completa con il nome che si legge nel testo.\n\n{}",
    "Che nome va messo al posto dello spazio vuoto?\n\n{}", "Secondo il testo, di quale nome si tratta?\n\n{}",
)  # fmt: skip
_NEXT = (
    "Quale di queste frasi viene subito dopo «{}»?", "Nel testo, quale frase segue questa: «{}»?",
    "Dopo «{}», con quale frase continua il testo?", "Scegli la frase che nel brano segue «{}».",
)  # fmt: skip
_FIRST = (
    "Quale di queste due frasi compare prima nel testo?", "Delle due frasi, quale si legge per prima?",
    "In che ordine stanno queste frasi? Scrivi quella che viene prima.", "Quale delle due il testo dice prima?",
)  # fmt: skip
_STATEMENT = (
    "Il testo contiene questa affermazione?\n\n{}", "Si legge nel testo quanto segue?\n\n{}",
    "Questa frase viene dal testo?\n\n{}", "Controlla se il brano dice questo.\n\n{}",
)  # fmt: skip
_YES = ("Sì.", "Sì, il testo lo dice.", "Sì, è una frase del testo.", "Sì, si legge nel brano.")
_NO = ("No.", "No, il testo non lo dice.", "No, questa frase non è nel testo.", "No, nel brano non si trova.")
_MENTION = (
    "In quale frase è nominato «{}»?", "Riporta la frase in cui compare «{}».", "Dove si parla di «{}»? Cita la frase.",
    "Che cosa dice il testo a proposito di «{}»? Rispondi con le sue parole.",
)  # fmt: skip

#: Each kind of question: a function that makes one, or None where the text gives none.
QUESTIONS: dict[str, Maker] = {
    "title": _title, "definition": _definition, "word": _filled("word", _WORD.finditer, _MISSING_WORD),
    "number": _filled("number", _NUMBER.finditer, _MISSING_NUMBER), "name": _filled("name", _names, _MISSING_NAME),
    "next": _next, "first": _first, "statement": _statement, "mention": _mention,
}  # fmt: skip
