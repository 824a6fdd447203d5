"""Extractive answers without a model: sentences of the source, or an extractive summary of a chapter.

Everything in an extract is a span of the stored text and is verified all the same. Whether it answers is another matter,
and is said: `sure`, or only the nearest passage, or nothing at all.
"""

from __future__ import annotations

from collections.abc import Sequence

from stilnovo.chat.choose import Choice, choose, unknown_names
from stilnovo.chat.extracted import Extract, quoted
from stilnovo.chat.question import Question
from stilnovo.chat.quotes import Quote
from stilnovo.chat.understanding import understood
from stilnovo.library.records import Work
from stilnovo.library.store import Library

NOTHING_FOUND = "Nella biblioteca non trovo nulla che risponda a questa domanda."
NEAREST = "Non trovo una risposta sicura; il passo più vicino è questo: "
#: Passages that a writer may be given, best first.
OFFERED = 5
#: A passage with less of the question's weight is not shown as the nearest one: in a library of SHELF passages and more, one
#: that has half of any question's words is found by chance. (On the dev half of bench/questions every right answer has
#: .60 or more, and half of the unanswerable questions less; in a single novella the words decide nothing.)
SHOWN, SHELF = 0.58, 1000


def extract(library: Library, question: str, limit: int = 1, before: Work | None = None) -> Extract:
    """Answer a question with the library's own words.

    Args:
        library: Where to look.
        question: In Italian, of one sentence or a few.
        limit: How many quotations an answer has at most; a chapter has its own number.
        before: The work last spoken of; it decides between chapters of the same name.
    """
    about = understood(question.strip(), library, before)
    if about.answer is not None:
        return about.answer
    asked = Question(about.rest)
    if unknown := unknown_names(asked, library):
        return Extract(f"{NOTHING_FOUND} Non vi compare {' né '.join(f'«{name}»' for name in unknown)}.")
    chosen = choose(asked, library, max(limit, OFFERED), about.works, about.sections)
    if not chosen:
        return Extract(NOTHING_FOUND)
    passages = tuple(choice.passage for choice in chosen)
    doubtful = not chosen[0].sure and chosen[0].covered < SHOWN
    if doubtful and sum(work.passages for work in library.works()) >= SHELF:
        return Extract(NOTHING_FOUND, passages=passages)
    text, quotes = _answered("" if chosen[0].sure else NEAREST, chosen[:limit], library)
    return Extract(text, quotes, passages, chosen[0].sure)


def _answered(opening: str, choices: Sequence[Choice], library: Library) -> tuple[str, tuple[Quote, ...]]:
    return quoted(opening, [(choice.passage.section, choice.text) for choice in choices], library)
