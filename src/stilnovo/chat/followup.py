"""Rewrite follow-up questions as self-contained queries, by a rule or by a model whose output is checked.

The rule: a message leans on the question before it when it has no name of its own and is short, opens with *e*, *ma*,
*allora*, or points back with a pronoun; then the names of that question (its words, when it had no names) and the work
last quoted are added to the search, and only to the search. A question for a chapter alone (*e nel canto VI?*) takes
the work, and what was asked of the chapter before.

A model may rewrite it instead. Its sentence is taken only when it is one question of some length, brings in no name and no
number that was not said before, and keeps the names of the message; else the rule stands.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from stilnovo.chat.events import Turn
from stilnovo.chat.question import Question
from stilnovo.chat.writing import CLOSE, AnswerWriter
from stilnovo.errors import StilnovoError
from stilnovo.text.italian import content_words, tokens, words
from stilnovo.text.template import Message

#: A message with at most this many content words and no name leans on the question before.
SHORT = 2
#: Turns and characters of each that a model sees when it rewrites; a rewriting is no longer than LONGEST characters.
TURNS, CHARACTERS, LONGEST = 2, 400, 300
REWRITE = (
    "Riscrivi l'ultima domanda in modo che si capisca da sola, mettendo al posto dei pronomi le persone e le opere di cui "
    "si parla. Non rispondere e non aggiungere altro: scrivi soltanto la domanda."
)
_LEANING = re.compile(
    r"^(?:e|ed|ma|allora|poi|invece)\b|\b(?:lui|lei|egli|ella|esso|essa|essi|esse|loro|costui|costei|quest[oa]|quell[oa]"
    r"|su[oaei]|suoi|sue|gli|ne)\b"
)


def leans(message: str) -> bool:
    """Whether a message depends on the previous question."""
    question = Question(message)
    if question.names or question.greets:
        return False
    return bool(len(content_words(message)) <= SHORT or _LEANING.search(question.folded))


def self_contained(message: str, before: str | None, work: str = "") -> str:
    """Rewrite the message as a self-contained query: add the names, or else the words, of the question it depends on.

    `work` is the title last quoted; it is added where the message leans.
    """
    if before is None or not leans(message):
        return message
    earlier = Question(before)
    # *E perché?* asks it of all that was asked before; *E sua madre?* only of the same person.
    wanted = set((content_words(message) and earlier.names) or earlier.terms) - set(words(message))
    added = list(dict.fromkeys(before[t.start : t.end] for t in tokens(before) if t.form in wanted))
    inside = set(words(work))
    # What the message or the title says already need not be said twice.
    work = "" if inside <= set(words(" ".join([message, *added]))) else work
    added = [word for word in added if not (work and set(words(word)) <= inside)]
    parts = ", ".join(part for part in (" ".join(added), work) if part)
    return f"{message} ({parts})" if parts else message


def rewritten(message: str, history: Sequence[Turn], writer: AnswerWriter) -> str | None:
    """Let a model rewrite the message as a self-contained query; None if the result cannot be trusted."""
    said = "\n".join(
        f"Domanda: {turn.user[:CHARACTERS]}\nRisposta: {turn.assistant[:CHARACTERS]}" for turn in history[-TURNS:]
    )
    messages = [Message("system", REWRITE), Message("user", f"{said}\nUltima domanda: {message}")]
    if not history or writer.count(messages) + CLOSE.max_new_tokens > writer.context_tokens:
        return None
    try:
        text = "".join(writer.stream(messages, CLOSE)).strip().strip('«»"“”').strip()
    except StilnovoError:
        return None
    return text if _faithful(text, message, said) else None


def _faithful(text: str, message: str, said: str) -> bool:
    if not 0 < len(text) <= LONGEST or "\n" in text or not text.endswith("?"):
        return False
    named = {t.form for t in tokens(text)[1:] if text[t.start].isupper() or t.form.isdigit()}
    return named <= {*words(said), *words(message)} and set(Question(message).names) <= set(words(text))
