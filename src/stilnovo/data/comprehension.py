"""Reading comprehension: a document becomes a conversation of questions and answers about its own text.

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
from functools import partial

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
    """The excerpt that questions are about: consecutive whole sentences of one document.

    Attributes:
        whole: Whether it begins where the document begins.
        sentences: All of them, in order.
        good: Places of those that are well formed: what may be asked about.
        starts: Where each sentence begins in the text.
        foreign: A well-formed sentence of another document, empty when there is none.
    """

    title: str
    text: str
    whole: bool
    sentences: tuple[str, ...]
    good: tuple[int, ...]
    starts: tuple[int, ...]
    foreign: str = ""


Made = tuple[tuple[str, ...], str, str]  # what the question shows, the answer, the sentence that it was made of
Maker = Callable[[Excerpt, random.Random], Made | None]


def comprehension(
    documents: Sequence[Document], seed: int, share: float, tally: Tally | None = None
) -> list[Conversation]:
    """Make conversations from a share of the documents, drawn by seed, one each, in the documents' order.

    Args:
        documents: Texts with a title or without.
        share: Of all documents; those that are drawn but too short are left out.
        tally: Counts what was taken and what was left, with its place.
    """
    tally = Tally() if tally is None else tally
    chosen = sorted(random.Random(f"{seed}").sample(range(len(documents)), round(share * len(documents))))
    conversations = []
    for index in chosen:
        rng = random.Random(f"{seed} {index}")
        document = documents[index]
        excerpt = excerpt_of(document, rng, _foreign(documents, index, rng))
        make = _continuation if excerpt and rng.random() < CONTINUED else _conversation
        if excerpt and (turns := make(excerpt, rng)):
            conversations.append(Conversation(f"comprehension-{document.id}", turns))
        else:
            reason = "nothing to ask about" if excerpt else "too short for questions"
            tally.leave(f"document {index + 1}", BadRow(reason, document.title or document.text[:40]))
    tally.taken += len(conversations)
    return conversations


def excerpt_of(document: Document, rng: random.Random, foreign: str = "") -> Excerpt | None:
    """Choose the excerpt of a document: all of it, or a run of sentences; None when too few are well formed."""
    text = document.text.strip()
    spans = sentences(text)
    first = 0
    if len(text) > EXCERPT_CHARS and rng.random() < 0.5:
        first = rng.randint(0, max(0, sum(start < len(text) - EXCERPT_CHARS for start, _ in spans) - 1))
    begin = spans[first][0] if spans else 0
    whole = [span for span in spans[first:] if span[1] - begin <= EXCERPT_CHARS]
    parts = tuple(text[start:stop] for start, stop in whole)
    good = tuple(at for at, part in enumerate(parts) if _is_good(part) and parts.count(part) == 1)
    if len(good) < FEWEST_SENTENCES:
        return None
    return Excerpt(
        document.title, text[begin : whole[-1][1]], first == 0, parts, good, tuple(start - begin for start, _ in whole),
        "" if foreign in text else foreign,
    )  # fmt: skip


def ask(excerpt: Excerpt, rng: random.Random) -> list[Asked]:
    """Up to `MOST_QUESTIONS` questions of different kinds, and about different sentences, in random order."""
    kinds = list(QUESTIONS)
    rng.shuffle(kinds)
    asked: list[Asked] = []
    for kind in kinds:
        if len(asked) == MOST_QUESTIONS:
            break
        if kind in _GIVE_AWAY and any(question.kind in _GIVE_AWAY for question in asked):
            continue
        if (made := QUESTIONS[kind](excerpt, rng)) is None:
            continue
        shown, answer, source = made
        if not source or all(source != question.source for question in asked):
            asked.append(Asked(kind, rng.choice(PHRASINGS[kind]).format(*shown), answer, source))
    return asked


def _conversation(excerpt: Excerpt, rng: random.Random) -> tuple[Message, ...] | None:
    asked = ask(excerpt, rng)
    if len(asked) < 2:
        return None
    opening = rng.choice(PHRASINGS["opening"])
    turns = [
        Message("user", f"{opening}\n\n{excerpt.text}\n\n{asked[0].question}"),
        Message("assistant", asked[0].answer),
    ]
    for following in asked[1:]:
        turns += [Message("user", following.question), Message("assistant", following.answer)]
    return tuple(turns)


def _continuation(excerpt: Excerpt, rng: random.Random) -> tuple[Message, ...] | None:
    """Ask for the next two sentences after the beginning of the text, where those are well formed."""
    pairs = [at for at in excerpt.good if at >= 2 and at + 1 in excerpt.good]
    if not pairs:
        return None
    at = rng.choice(pairs)
    end, stop = excerpt.starts[at], excerpt.starts[at + 1] + len(excerpt.sentences[at + 1])
    return (
        Message("user", f"{rng.choice(PHRASINGS['continue'])}\n\n{excerpt.text[:end].rstrip()}"),
        Message("assistant", excerpt.text[end:stop]),
    )


def _is_good(sentence: str) -> bool:
    """Whether a sentence is complete and plain."""
    even = sentence.count('"') % 2 == 0
    paired = all(sentence.count(a) == sentence.count(b) for a, b in ("()", "[]", "«»", "“”"))
    whole = _WELL_FORMED.fullmatch(sentence) and not _TORN.search(sentence)
    return bool(whole) and even and paired and sentence.count(" ") >= 5


def _foreign(documents: Sequence[Document], index: int, rng: random.Random) -> str:
    """Draw a well-formed sentence from one of three other documents."""
    for _ in range(3 if len(documents) > 1 else 0):
        other = (index + rng.randrange(1, len(documents))) % len(documents)
        text = documents[other].text[: 2 * EXCERPT_CHARS]
        if good := [text[a:b] for a, b in sentences(text) if _is_good(text[a:b])]:
            return rng.choice(good)
    return ""


def _title(excerpt: Excerpt, _rng: random.Random) -> Made | None:
    title = excerpt.title
    return ((), title, "") if title and excerpt.whole and not excerpt.text.startswith(f"{title}\n") else None


def _definition(excerpt: Excerpt, _rng: random.Random) -> Made | None:
    """Ask for a definition of the document's title: its first sentence, when that names it."""
    first, title = excerpt.sentences[0], excerpt.title
    named = title and re.match(
        rf"(?:(?:Il|Lo|La|I|Gli|Le|Un|Uno|Una) |L['’]|Un['’])?{re.escape(title)}\b", first, re.IGNORECASE
    )
    return ((title,), first, first) if excerpt.whole and named and 0 in excerpt.good else None


def _names(sentence: str) -> list[re.Match[str]]:
    """Find names within a sentence: whole ones, not a part of a longer one that is spelt otherwise."""
    return [
        match for match in _NAME.finditer(sentence)
        if _BEFORE_A_NAME.fullmatch(sentence[: match.start()].split()[-1])
    ]  # fmt: skip


def _sentence_with(
    excerpt: Excerpt, rng: random.Random, find: Callable[[str], Iterable[re.Match[str]]], text: str | None = None
) -> tuple[str, re.Match[str]] | None:
    """Draw a sentence and a match in it that occurs once in the sentence, or in `text`."""
    for at in rng.sample(excerpt.good, len(excerpt.good)):
        sentence = excerpt.sentences[at]
        if once := [match for match in find(sentence) if (text or sentence).count(match.group()) == 1]:
            return sentence, rng.choice(once)
    return None


def _gap(find: Callable[[str], Iterable[re.Match[str]]], excerpt: Excerpt, rng: random.Random) -> Made | None:
    """Ask for a word removed from a sentence."""
    drawn = _sentence_with(excerpt, rng, lambda s: (m for m in find(s) if m.group().lower() not in STOP_WORDS))
    if drawn is None:
        return None
    sentence, gap = drawn
    return (f"{sentence[: gap.start()]}{BLANK}{sentence[gap.end() :]}",), gap.group(), sentence


def _next(excerpt: Excerpt, rng: random.Random) -> Made | None:
    """Ask which of four sentences of the text follows a given one."""
    pairs = [at for at in excerpt.good if at + 1 in excerpt.good]
    if not pairs:
        return None
    at = rng.choice(pairs)
    others = [other for other in excerpt.good if other not in (at, at + 1)]
    shown = [at + 1, *rng.sample(others, min(len(others), len(_LETTERS) - 1))]
    if len(shown) < 3:
        return None
    rng.shuffle(shown)
    options = [f"{letter}. {excerpt.sentences[n]}" for letter, n in zip(_LETTERS, shown, strict=False)]
    return (excerpt.sentences[at], "\n".join(options)), options[shown.index(at + 1)], excerpt.sentences[at]


def _first(excerpt: Excerpt, rng: random.Random) -> Made | None:
    """Ask which of two sentences comes first."""
    shown = rng.sample(excerpt.good, 2)
    first = excerpt.sentences[min(shown)]
    return tuple(excerpt.sentences[at] for at in shown), first, first


def _statement(excerpt: Excerpt, rng: random.Random) -> Made | None:
    """Ask whether a sentence stands in the text: one of its own, or one of another document."""
    own = rng.random() < 0.5 or not excerpt.foreign
    sentence = excerpt.sentences[rng.choice(excerpt.good)] if own else excerpt.foreign
    return (sentence,), rng.choice(PHRASINGS["yes" if own else "no"]), sentence


def _mention(excerpt: Excerpt, rng: random.Random) -> Made | None:
    """Ask for the sentence that names somebody or something no other sentence names."""
    drawn = _sentence_with(excerpt, rng, _names, excerpt.text)
    return None if drawn is None else ((drawn[1].group(),), drawn[0], drawn[0])


_GIVE_AWAY = ("title", "definition")  # each would answer the other

#: Phrasings by kind of question, and of what stands around them; what a maker shows is put in for each {}.
PHRASINGS: dict[str, tuple[str, ...]] = {
    "opening": (
        "Leggi questo testo.", "Ecco un brano di enciclopedia.", "Leggi con attenzione il brano che segue.",
        "Ti do un testo: poi ti farò qualche domanda.", "Considera il testo seguente.", "Parti da questo testo.",
    ),
    "continue": (
        "Continua questo testo con le due frasi che seguono.",
        "Come va avanti questo brano? Scrivi le prossime due frasi.", "Prosegui il testo per altre due frasi.",
        "Il brano si interrompe: riprendilo e scrivi due frasi.",
    ),
    "title": (
        "Di che cosa parla questo testo?", "Quale titolo daresti a questo testo?", "Qual è l'argomento del testo?",
        "A quale voce di enciclopedia appartiene questo testo?", "Indica in poche parole il soggetto del brano.",
    ),
    "definition": (
        "Che cosa dice il testo, in una frase, di «{}»?", "Con quale frase il testo presenta «{}»?",
        "Riporta la frase che introduce «{}».", "Come comincia la voce «{}»?",
    ),
    "word": (
        "Quale parola manca in questa frase del testo?\n\n{}", "Completa la frase con la parola del testo.\n\n{}",
        "Nella frase che segue ho tolto una parola: quale?\n\n{}", "Riempi lo spazio vuoto come nel testo.\n\n{}",
    ),
    "number": (
        "Quale numero manca in questa frase?\n\n{}", "Inserisci il numero che dà il testo.\n\n{}",
        "Secondo il testo, quale numero va al posto dello spazio?\n\n{}", "Completa con il numero giusto.\n\n{}",
    ),
    "name": (
        "Quale nome manca in questa frase?\n\n{}", "Completa con il nome che si legge nel testo.\n\n{}",
        "Che nome va messo al posto dello spazio vuoto?\n\n{}", "Secondo il testo, di quale nome si tratta?\n\n{}",
    ),
    "next": (
        "Quale di queste frasi viene subito dopo «{}»?\n\n{}", "Nel testo, quale frase segue questa: «{}»?\n\n{}",
        "Dopo «{}», con quale frase continua il testo?\n\n{}", "Scegli la frase che nel brano segue «{}».\n\n{}",
    ),
    "first": (
        "Quale di queste due frasi compare prima nel testo?\n\n– {}\n– {}",
        "Delle due frasi, quale si legge per prima?\n\n– {}\n– {}",
        "In che ordine stanno queste frasi? Scrivi quella che viene prima.\n\n– {}\n– {}",
        "Quale delle due il testo dice prima?\n\n– {}\n– {}",
    ),
    "statement": (
        "Il testo contiene questa affermazione?\n\n{}", "Si legge nel testo quanto segue?\n\n{}",
        "Questa frase viene dal testo?\n\n{}", "Controlla se il brano dice questo.\n\n{}",
    ),
    "yes": (
        "Sì.", "Sì, il testo lo dice.", "Sì, è una frase del testo.", "Sì, si legge nel brano.",
    ),
    "no": (
        "No.", "No, il testo non lo dice.", "No, questa frase non è nel testo.", "No, nel brano non si trova.",
    ),
    "mention": (
        "In quale frase è nominato «{}»?", "Riporta la frase in cui compare «{}».",
        "Dove si parla di «{}»? Cita la frase.",
        "Che cosa dice il testo a proposito di «{}»? Rispondi con le sue parole.",
    ),
}  # fmt: skip

#: Each kind of question: a function that makes one, or None where the text gives none.
QUESTIONS: dict[str, Maker] = {
    "title": _title, "definition": _definition, "word": partial(_gap, _WORD.finditer), "number": partial(_gap, _NUMBER.finditer),
    "name": partial(_gap, _names), "next": _next, "first": _first, "statement": _statement, "mention": _mention,
}  # fmt: skip
