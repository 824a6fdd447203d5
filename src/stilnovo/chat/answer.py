"""One question to the library, one answer whose quotations are verified.

Either way no quotation reaches the reader unchecked. Extractive answers are spans of the stored text by construction
and are verified all the same; a writer's quotations are looked up in the passage they cite, put right or marked, and
where none of them stands, the found sentence is added. When nothing relevant is found the answer says so.
"""

from __future__ import annotations

from stilnovo.chat.conversation import ChatSession
from stilnovo.chat.events import Answer, Mode
from stilnovo.chat.extract import NEAREST, NOTHING_FOUND
from stilnovo.chat.writing import SYSTEM, AnswerWriter
from stilnovo.library.store import Library

__all__ = ["NEAREST", "NOTHING_FOUND", "Answer", "ask"]


def ask(
    library: Library,
    question: str,
    writer: AnswerWriter | None = None,
    limit: int = 1,
    mode: Mode = "library",
    system: str = SYSTEM,
) -> Answer:
    """Answer a question from the library.

    Args:
        library: Where to look.
        question: In Italian, of one sentence or a few.
        writer: A model that writes; None gives the extractive answer.
        limit: How many quotations an extractive answer has at most.
        mode: Where the answer may come from.
        system: The system prompt.
    """
    *_, answer = ChatSession(writer, system, library=library, limit=limit).reply(question, mode)
    assert isinstance(answer, Answer)
    return answer
