"""Multi-turn conversations with a model, a library, or both, fitted to the model's context.

The rule: the instructions and the newest message always stay; when they, the history and the passages leave less than
`reserve` tokens for the answer, the oldest complete turns are dropped, one by one, then the last passages, and each drop
is reported by a `Notice`. Passages of the library are only in the newest message; earlier turns keep their text. A chapter
to be summarised as a whole is read from its beginning as far as the context allows, without history. A message that does
not fit even alone is refused.

Three modes. *library*: only what the library has; where it has nothing, it says so and no model is asked. *library_plus*:
the same, and then, under a heading of its own, what the model knows by itself, written without the passages, so that the
two cannot mix; quotations there are looked up in the library as well. *chat*: the model alone.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Generator, Iterator, Sequence

from stilnovo.chat import followup, scope, writing
from stilnovo.chat.events import MODES, Answer, Code, Event, Finish, Kind, Mode, Notice, TextToken, Turn
from stilnovo.chat.extract import extract
from stilnovo.chat.extracted import Extract
from stilnovo.chat.followup import self_contained
from stilnovo.chat.question import Question
from stilnovo.chat.quotes import Quote
from stilnovo.chat.understanding import same_again
from stilnovo.chat.writing import INSTRUCTIONS, SUMMARY, SYSTEM, AnswerWriter, Checker, checked, fitted
from stilnovo.errors import InputError, StilnovoError, check_types
from stilnovo.generate.sampling import Sampling
from stilnovo.library.records import Passage, Work
from stilnovo.library.search import search
from stilnovo.library.store import Library
from stilnovo.text.template import Message

__all__ = ["SYSTEM", "ChatSession", "Turn", "ask", "self_contained"]

FROM_THE_TEXT = "\n\nDal testo: "
FROM_THE_LIBRARY = "Dalla biblioteca:\n"
FROM_THE_MODEL = "\n\nDalla conoscenza del modello, non verificata:\n"
ALONE = (
    "Rispondi in poche frasi con ciò che sai. Non inventare citazioni: se non ricordi le parole esatte di un'opera, non "
    "metterle fra virgolette."
)
_ASKING = re.compile(r"\?|^(?:chi|che|cosa|dove|quando|come|perche|qual|quale|quali|quant[oiae]|riassum\w+|parlami)\b")
#: Passages in which a quotation from the model's memory is looked for.
LOOKED_THROUGH = 3


class _Cancelled(Exception):
    """Raised when the user stops the answer."""


class ChatSession:
    """A conversation with a model, a library, or both.

    Without a writer the library answers by itself (extractive); without a library the model talks.

    Attributes:
        turns: Complete turns in the history, oldest first.
        dropped: How many complete turns have been dropped so far.
    """

    def __init__(
        self,
        writer: AnswerWriter | None = None,
        system: str = SYSTEM,
        reserve: int | None = None,
        library: Library | None = None,
        history: Sequence[Turn | tuple[str, str]] = (),
        rewrite: bool = False,
        limit: int = 1,
    ) -> None:
        """Start a conversation.

        Args:
            writer: A model that writes; None: the library answers.
            system: The system prompt; the instructions for passages are added to it where passages are given.
            reserve: Tokens reserved for the answer; None for the sampling's `max_new_tokens`.
            library: Where to look.
            history: Turns to go on from, oldest first; of a bare (message, answer) is found out again what was searched.
            rewrite: Let the model make follow-up questions self-contained; the rule stands where it fails.
            limit: Quotations at most in an extractive answer.
        """
        if writer is None and library is None:
            raise InputError("A conversation needs a model, a library, or both.")
        self.writer, self.system, self.reserve, self.library = writer, system, reserve, library
        self.rewrite, self.limit = rewrite, limit
        self.turns: list[Turn] = []
        self.dropped = 0
        self.warned: set[tuple[Code, int, str]] = set()
        self._asked: str | None = None
        for turn in (Turn(*known) for known in history):
            if library is not None:
                self._asked = (self._searched(turn.user) if turn.searched is None else turn.searched) or self._asked
            self.turns.append(turn)

    def clear(self) -> None:
        """Begin a new conversation."""
        self.turns, self.dropped, self._asked = [], 0, None

    def reply(
        self,
        message: str,
        mode: Mode = "library",
        sampling: Sampling | None = None,
        cancel: threading.Event | None = None,
    ) -> Generator[Event, None, None]:
        """Answer a message, event by event (see `stilnovo.chat.events`).

        Closing the generator, or setting `cancel` from another thread, ends the writing; then nothing of the turn is kept.

        Args:
            message: What the person says.
            mode: Where the answer may come from; without a library always *chat*, without a model always *library*.
            sampling: How the model writes.
            cancel: Checked before every piece.

        Raises:
            InputError: the message alone leaves the model no room to answer, or says nothing.
        """
        if not message.strip():
            raise InputError("The message is empty.")
        return _Reply(self, message, mode, sampling, cancel or threading.Event()).events()

    def _searched(self, message: str) -> str:
        """The message as a search query, made self-contained."""
        if self._asked is None:
            return message
        if scope.named_section(message) is not None:
            # A chapter is found by its number; the work last quoted is preferred without being named.
            return scope.follow_up(message, self._asked)
        if self.library is not None and (again := same_again(message, self._asked, self.library)) is not None:
            return again
        work = self._last_work() if followup.leans(message) else None
        return self_contained(message, self._asked, work.title if work else "")

    def _last_work(self) -> Work | None:
        """The work that the last answer quotes last; where only its text is known, its quotations are looked up again."""
        asking = [turn for turn in self.turns if turn.searched != ""]
        if not asking or self.library is None:
            return None
        turn = asking[-1]
        if turn.searched is not None:
            return turn.work
        return _work_of(checked(turn.assistant, (), self.library, _nearest(self.library))[1])

    def _keep(self, turn: Turn, dropped: int) -> None:
        del self.turns[:dropped]
        self.dropped += dropped
        self.turns.append(turn)
        self._asked = turn.searched or self._asked


def ask(
    library: Library,
    question: str,
    writer: AnswerWriter | None = None,
    limit: int = 1,
    mode: Mode = "library",
    system: str = SYSTEM,
) -> Answer:
    """Answer one question from the library; no quotation reaches the reader unchecked.

    Extractive answers are spans of the stored text by construction and are verified all the same; a writer's quotations
    are looked up in the passage they cite, put right or marked, and where none of them stands, the found sentence is added.
    When nothing relevant is found the answer says so.

    Args:
        library: Where to look.
        question: In Italian, of one sentence or a few.
        writer: A model that writes; None gives the extractive answer.
        limit: How many quotations an extractive answer has at most.
        mode: Where the answer may come from.
        system: The system prompt.
    """
    check_types(Library, library=library)
    check_types(str, question=question)
    if mode not in MODES:
        raise InputError(f"There is no mode {mode!r}.", next=f"Choose one of: {', '.join(MODES)}.")
    *_, answer = ChatSession(writer, system, library=library, limit=limit).reply(question, mode)
    assert isinstance(answer, Answer)
    return answer


class _Reply:
    """The state of one answer while it is generated."""

    def __init__(
        self, talk: ChatSession, message: str, mode: Mode, sampling: Sampling | None, cancel: threading.Event
    ) -> None:
        self.talk, self.message, self.cancel, self.sampling = talk, message, cancel, sampling or writing.CLOSE
        self.asked_mode = mode
        self.mode: Mode = "chat" if talk.library is None else "library" if talk.writer is None else mode
        self.text, self.searched, self.failure, self.dropped = "", "", "", 0
        self.quotes: list[Quote] = []
        self.notices: list[Notice] = []
        self.extract = Extract("")
        self.kind: Kind = "extractive"
        self.cut, self.prompt_tokens, self.completion_tokens = False, 0, 0

    def events(self) -> Generator[Event, None, None]:
        """See `ChatSession.reply`."""
        if self.mode != self.asked_mode and self.asked_mode == "library_plus":
            yield self._notice("no_model")
        yield from self._warned()
        try:
            yield from self._streamed(self.talk.system) if self.mode == "chat" else self._over_library()
        except _Cancelled:
            yield from self._end("cancelled")
        except InputError:
            raise
        except StilnovoError as error:
            notice = self._notice("writer_failed", detail=error.what)
            self.failure = notice.text
            yield notice
            if self.extract.quotes and not any(quote.sound for quote in self.quotes):
                yield self._add_extract(self._from_the_text() if self.text else "")
            yield from self._end("failed")
        else:
            # Where nothing was asked, what was spoken of before still is.
            searched = "" if Question(self.searched).empty else self.searched
            turn = Turn(self.message, self.text, tuple(self.quotes), searched, self._work())
            self.talk._keep(turn, self.dropped)
            yield from self._end("length" if self.cut else "stop")

    def _work(self) -> Work | None:
        """The work spoken of: the one quoted last, or the only one whose record answers."""
        return _work_of(self.quotes) or (self.extract.records[0] if len(self.extract.records) == 1 else None)

    def _end(self, finish: Finish) -> Iterator[Event]:
        yield from self._warned()
        if false := sum(not quote.sound for quote in self.quotes):
            yield self._notice("unverified", false)
        yield Answer(
            self.message, self.text, self.kind, self.mode, tuple(self.quotes), self.extract.passages, tuple(self.notices),
            self.searched, self.extract.sure, finish, self.failure, self.prompt_tokens, self.completion_tokens,
            self.extract.records, self.extract.confidence,
        )  # fmt: skip

    def _warned(self) -> Iterator[Notice]:
        """Warnings of the writer about its context, each once per conversation."""
        for warning in getattr(self.talk.writer, "warnings", ()):
            if warning not in self.talk.warned:
                self.talk.warned.add(warning)
                yield self._notice(*warning)

    def _notice(self, code: Code, count: int = 0, detail: str = "") -> Notice:
        self.notices.append(Notice(code, count, detail))
        return self.notices[-1]

    def _add(self, text: str) -> TextToken:
        self.text += text
        return TextToken(text)

    def _from_the_text(self) -> str:
        return FROM_THE_TEXT if self.extract.sure else "\n\n"

    def _add_extract(self, opening: str = "") -> TextToken:
        """Append the extracted sentences to the answer."""
        self.quotes[:0] = [quote.moved(len(self.text + opening)) for quote in self.extract.quotes]
        return self._add(opening + self.extract.text)

    def _over_library(self) -> Iterator[Event]:
        talk, library = self.talk, self.talk.library
        assert library is not None
        self.searched = talk._searched(self.message)
        if talk.rewrite and talk.writer is not None and followup.leans(self.message):
            self.searched = followup.rewritten(self.message, talk.turns, talk.writer) or self.searched
        if self.searched != self.message:
            yield self._notice("search", detail=self.searched)
        extracted = self.extract = extract(library, self.searched, talk.limit, talk._last_work())
        asking = bool(_ASKING.search(Question(self.message).folded))
        plus = self.mode == "library_plus"
        if plus and asking:
            yield self._add(FROM_THE_LIBRARY)
        if extracted.final and not extracted.quotes:
            self.kind = "records"
        if talk.writer is None or extracted.final or (asking and not extracted.passages):
            yield self._add_extract()
        else:
            yield from self._written()
        if plus and asking and not (extracted.asks_back or (extracted.final and extracted.records)):
            yield self._add(FROM_THE_MODEL)
            # What the model knows by itself: it does not see the passages; its quotations are looked up all the same.
            yield from self._streamed(f"{talk.system}\n\n{ALONE}", more=_nearest(library))

    def _written(self) -> Iterator[Event]:
        """Generate the model's answer from the retrieved passages; append the extract where no quotation is verified."""
        extracted, system = self.extract, self.talk.system
        if extracted.passages:
            system += f"\n\n{SUMMARY if extracted.whole else INSTRUCTIONS}"
        yield from self._streamed(
            system, extracted.passages if extracted.whole else extracted.passages[: writing.GIVEN]
        )
        if extracted.quotes and not extracted.records and not any(quote.sound for quote in self.quotes):
            yield self._add_extract(self._from_the_text())

    def _streamed(
        self, system: str, passages: Sequence[Passage] = (), more: Callable[[str], Sequence[Passage]] = lambda _: ()
    ) -> Iterator[Event]:
        """Stream the model's text, checked unless the model talks alone; notices say what was dropped to fit its context.

        However it ends, the stream is closed and its tokens are counted: the pieces, or the text counted again where a
        piece held several.
        """
        talk, writer, whole = self.talk, self.talk.writer, self.extract.whole
        assert writer is not None
        self.kind = "written"
        messages, given, dropped = fitted(
            system, [] if whole and passages else talk.turns, self.message, passages, writer,
            talk.reserve or self.sampling.max_new_tokens,
        )  # fmt: skip
        if dropped > self.dropped:
            # Told once, and dropped for good once the turn is kept.
            yield self._notice("history", dropped)
            self.dropped = dropped
        if left := len(passages) - len(given):
            yield self._notice("section" if whole else "passages", left)
        library = talk.library if self.mode != "chat" else None
        checker = Checker(given, library, more, len(self.text), self.quotes) if library is not None else None
        pieces, count, text = writer.stream(messages, self.sampling), 0, ""
        failure: StilnovoError | None = None
        self.prompt_tokens += writer.count(messages)
        try:
            for piece in pieces:
                if self.cancel.is_set():
                    raise _Cancelled
                count, text = count + 1, text + piece
                if shown := checker.feed(piece) if checker else piece:
                    yield self._add(shown)
        except StilnovoError as error:
            failure = error
        finally:
            if isinstance(pieces, Generator):
                pieces.close()
            written = max(count, writer.count([Message("user", text)]) - writer.count([Message("user", "")]))
            self.completion_tokens += written
            told = getattr(writer, "finish", None)
            self.cut = self.cut or (written >= self.sampling.max_new_tokens if told is None else told == "length")
        if checker and (shown := checker.end()):
            yield self._add(shown)
        if failure:
            raise failure


def _nearest(library: Library) -> Callable[[str], list[Passage]]:
    """Find the passages that may contain a quotation from memory: those nearest to its words."""
    return lambda claimed: [hit.passage for hit in search(library, claimed, LOOKED_THROUGH, words_only=True)]


def _work_of(quotes: Sequence[Quote]) -> Work | None:
    """The work that an answer quotes last."""
    quoted = [(quote.answer_start, quote.section.work) for quote in quotes if quote.section]
    return max(quoted, key=lambda place: place[0])[1] if quoted else None
