"""Extractive answers without a model: sentences of the source, or an extractive summary of a chapter.

Everything in an extract is a span of the stored text and is verified all the same. Whether it answers is another matter,
and is said: `sure`, or only the passages nearest to the question, or nothing at all.
"""

from __future__ import annotations

from stilnovo.chat.choose import choose, unknown_names
from stilnovo.chat.extracted import Extract, quoted
from stilnovo.chat.question import Question
from stilnovo.chat.understanding import understood
from stilnovo.library.records import Work
from stilnovo.library.store import Library

NOTHING_FOUND = "Nella biblioteca non trovo nulla che risponda a questa domanda."
NEAREST = "Non trovo una risposta sicura. I passi più vicini:\n"
NEAREST_ONE = "Non trovo una risposta sicura. Il passo più vicino:\n"
ASK = "Che cosa vuoi sapere? Chiedi di un'opera, di un personaggio o di un passo della biblioteca."
#: Passages that a writer may be given, best first; nearest passages shown.
OFFERED, SHOWN = 5, 3


def extract(library: Library, question: str, limit: int = 1, before: Work | None = None) -> Extract:
    """Answer a question with the library's own words.

    Args:
        library: Where to look.
        question: In Italian, of one sentence or a few.
        limit: How many quotations a sure answer has at most; of nearest passages there are at least three.
        before: The work last spoken of; it decides between chapters of the same name.
    """
    if Question(question).empty:
        return Extract(ASK, asks_back=True)
    about = understood(question.strip(), library, before)
    if about.answer is not None:
        return about.answer
    asked = Question(about.rest)
    if unknown := unknown_names(asked, library):
        return Extract(f"{NOTHING_FOUND} Non vi compare {' né '.join(f'«{name}»' for name in unknown)}.")
    chosen = choose(asked, library, about.works, about.sections, max(limit, OFFERED))
    if not chosen:
        return Extract(NOTHING_FOUND)
    sure, passages = chosen[0].sure, tuple(choice.passage for choice in chosen)
    shown = chosen[:limit] if sure else chosen[: max(limit, SHOWN)]
    opening = "" if sure else NEAREST if len(shown) > 1 else NEAREST_ONE
    text, quotes = quoted(opening, [(choice.passage.section, choice.text) for choice in shown], library)
    return Extract(text, quotes, passages, sure, confidence=chosen[0].confidence)
