"""A conversation over several turns, kept within what the model can read by a rule that is told, never silently.

The rule: the instructions and the newest message always stay; when they, the history and the passages leave less than
`reserve` tokens for the answer, the oldest complete turns are dropped, one by one, then the last passages, and each is
told by a `Notice`. Passages of the library stand only in the message that asks; earlier turns keep their words. A chapter
that is to be told as a whole is read from its beginning as far as the context holds, without history. What does not fit
even alone is refused.

Three modes. *library*: only what the library has; where it has nothing, it says so and no model is asked. *library_plus*:
the same, and then, under a heading of its own, what the model knows by itself, written without the passages, so that the
two cannot mix; quotations there are looked up in the library as well. *chat*: the model alone.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from stilnovo.chat import followup, scope, writing
from stilnovo.chat.events import Citations, Done, Event, Finish, Kind, Mode, Notice, TextToken
from stilnovo.chat.extract import Extract, extract
from stilnovo.chat.fitting import fitted
from stilnovo.chat.followup import self_contained
from stilnovo.chat.question import Question
from stilnovo.chat.quotes import Quote
from stilnovo.chat.writing import INSTRUCTIONS, SUMMARY, SYSTEM, AnswerWriter, Checker
from stilnovo.errors import InputError, StilnovoError
from stilnovo.library.records import Passage
from stilnovo.library.search import search
from stilnovo.library.store import Library
from stilnovo.text.template import Message

if TYPE_CHECKING:
    from stilnovo.generate.sampling import Sampling

__all__ = ["SYSTEM", "ChatSession", "Turn", "self_contained"]

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


class Turn(NamedTuple):
    """A message, its answer, and the quotations in it."""

    user: str
    assistant: str
    quotes: tuple[Quote, ...] = ()


class _Cancelled(Exception):
    """The person stopped the answer."""


class ChatSession:
    """Turns between a person and a model, over a library, or both.

    Without a writer the library answers by itself (extractive); without a library the model talks.

    Attributes:
        turns: Complete turns kept, oldest first.
        dropped: How many complete turns have been dropped so far.
    """

    def __init__(
        self,
        writer: AnswerWriter | None = None,
        system: str = SYSTEM,
        reserve: int | None = None,
        library: Library | None = None,
        history: Sequence[tuple[str, str]] = (),
        rewrite: bool = False,
        limit: int = 1,
    ) -> None:
        """Begin.

        Args:
            writer: A model that writes; None: the library answers.
            system: The system prompt; the instructions for passages are added to it where passages are given.
            reserve: Tokens kept free for an answer; None for as many as the sampling asks.
            library: Where to look.
            history: Turns to go on from, (message, answer), oldest first.
            rewrite: Let the model make follow-up questions self-contained; the rule stands where it fails.
            limit: Quotations at most in an extractive answer.
        """
        if writer is None and library is None:
            raise InputError("A conversation needs a model, a library, or both.")
        self.writer, self.system, self.reserve, self.library = writer, system, reserve, library
        self.rewrite, self.limit = rewrite, limit
        self.turns: list[Turn] = []
        self.dropped = 0
        self.warned: set[str] = set()
        self._asked: str | None = None
        for message, said in history:
            self._asked = self._searched(message)[0] if library is not None else None
            self.turns.append(Turn(message, said))

    def clear(self) -> None:
        """Begin anew."""
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
            cancel: Looked at before every piece.

        Raises:
            InputError: the message alone leaves the model no room to answer, or says nothing.
        """
        if not message.strip():
            raise InputError("The message is empty.")
        return _Reply(self, message, mode, sampling, cancel or threading.Event()).events()

    def _searched(self, message: str) -> tuple[str, bool]:
        """The message as the library is asked it, and whether that is another one."""
        assert self.library is not None
        if self._asked is None:
            return message, False
        if scope.named_section(message) is not None:
            # A chapter is found by its number; the work last quoted is preferred without being named.
            searched = scope.follow_up(message, self._asked)
            return searched, searched != message
        said = self.turns[-1].assistant if self.turns else ""
        work = followup.last_work(said, self.library) if followup.leans(message) else None
        searched = self_contained(message, self._asked, work.title if work else "")
        return searched, searched != message

    def _keep(self, turn: Turn, searched: str, dropped: int) -> None:
        del self.turns[:dropped]
        self.dropped += dropped
        self.turns.append(turn)
        self._asked = searched or self._asked


class _Reply:
    """One answer under way."""

    def __init__(
        self, talk: ChatSession, message: str, mode: Mode, sampling: Sampling | None, cancel: threading.Event
    ) -> None:
        self.talk, self.message, self.cancel, self._sampling = talk, message, cancel, sampling
        self.asked_mode = mode
        self.mode: Mode = "chat" if talk.library is None else "library" if talk.writer is None else mode
        self.text, self.searched, self.dropped = "", "", 0
        self.quotes: list[Quote] = []
        self.extract: Extract | None = None
        self.kind: Kind = "extractive"
        self.cut = False

    @property
    def sampling(self) -> Sampling:
        """As asked for, or close to the passages."""
        self._sampling = self._sampling or writing.default_sampling()
        return self._sampling

    def events(self) -> Generator[Event, None, None]:
        """See `ChatSession.reply`."""
        if self.mode != self.asked_mode and self.asked_mode == "library_plus":
            yield Notice("no_model", "Nessun modello è collegato: risponde la sola biblioteca.")
        yield from self._warned()
        try:
            yield from self._chat() if self.mode == "chat" else self._over_library()
        except _Cancelled:
            yield from self._end("cancelled")
        except InputError:
            raise
        except StilnovoError as error:
            yield Notice("writer_failed", f"Il modello si è interrotto: {error.what}")
            if self.extract is not None and self.extract.found and not any(quote.sound for quote in self.quotes):
                yield self._add(FROM_THE_TEXT + self.extract.text if self.text else self.extract.text)
                self.quotes += self.extract.quotes
            yield from self._end("failed")
        else:
            self.talk._keep(Turn(self.message, self.text, tuple(self.quotes)), self.searched, self.dropped)
            yield from self._end("length" if self.cut else "stop")

    def _end(self, finish: Finish) -> Iterator[Event]:
        yield from self._warned()
        quotes = tuple(dict.fromkeys(self.quotes))
        if false := sum(not quote.sound for quote in quotes):
            yield Notice("unverified", f"Citazioni che non stanno nei testi letti, e sono segnate: {false}.", false)
        yield Citations(quotes)
        passages, sure = (self.extract.passages, self.extract.sure) if self.extract else ((), False)
        yield Done(self.text, self.kind, self.mode, quotes, passages, self.searched, sure, finish)

    def _warned(self) -> Iterator[Notice]:
        """What a server's writer has to say of its context, once a conversation."""
        for text in getattr(self.talk.writer, "warnings", ()):
            if text not in self.talk.warned:
                self.talk.warned.add(text)
                yield Notice("context", text)

    def _add(self, text: str) -> TextToken:
        self.text += text
        return TextToken(text)

    def _over_library(self) -> Iterator[Event]:
        talk, library = self.talk, self.talk.library
        assert library is not None
        self.searched, other = talk._searched(self.message)
        if talk.rewrite and talk.writer is not None and followup.leans(self.message):
            pairs = [(turn.user, turn.assistant) for turn in talk.turns]
            self.searched = followup.rewritten(self.message, pairs, talk.writer) or self.searched
            other = self.searched != self.message
        if other:
            yield Notice("search", f"Cerco: {self.searched}")
        before = followup.last_work(talk.turns[-1].assistant, library) if talk.turns else None
        found = self.extract = extract(library, self.searched, talk.limit, before)
        asking = bool(_ASKING.search(Question(self.message).folded))
        plus = self.mode == "library_plus"
        if plus and asking:
            yield self._add(FROM_THE_LIBRARY)
        if talk.writer is None or found.asks_back or (asking and not found.passages):
            self.quotes += found.quotes
            yield self._add(found.text)
        else:
            yield from self._written(found)
        if plus and asking and not found.asks_back:
            yield self._add(FROM_THE_MODEL)
            yield from self._known()

    def _written(self, found: Extract) -> Iterator[Event]:
        """The model's answer over the passages found; the found sentence is added where it quotes nothing true."""
        library = self.talk.library
        assert library is not None
        self.kind = "written"
        system = f"{self.talk.system}\n\n{SUMMARY if found.section else INSTRUCTIONS}"
        history = [] if found.section else self.talk.turns
        most = len(found.passages) if found.section else writing.GIVEN
        messages, given = yield from self._fitted(
            system if found.passages else self.talk.system, history, found.passages, most
        )
        if found.section and len(given) < len(found.passages):
            text = f"Il capitolo è più lungo di quanto il modello legga: letti {len(given)} brani su {len(found.passages)}."
            yield Notice("section", text, len(found.passages) - len(given))
        checker = Checker(given, library)
        yield from self._streamed(messages, checker)
        if found.found and not any(quote.sound for quote in checker.quotes):
            yield self._add(FROM_THE_TEXT + found.text)
            self.quotes[:0] = found.quotes

    def _known(self) -> Iterator[Event]:
        """What the model knows by itself: it does not see the passages; its quotations are looked up all the same."""
        library = self.talk.library
        assert library is not None
        self.kind = "written"
        messages, _ = yield from self._fitted(f"{self.talk.system}\n\n{ALONE}", self.talk.turns, (), 0)
        yield from self._streamed(messages, Checker((), library, _nearest(library)))

    def _chat(self) -> Iterator[Event]:
        self.kind = "written"
        messages, _ = yield from self._fitted(self.talk.system, self.talk.turns, (), 0)
        yield from self._streamed(messages, None)

    def _fitted(
        self, system: str, history: Sequence[Turn], passages: Sequence[Passage], most: int
    ) -> Generator[Event, None, tuple[list[Message], Sequence[Passage]]]:
        """What the model reads; what had to give way is told."""
        assert self.talk.writer is not None
        reserve = self.talk.reserve or self.sampling.max_new_tokens
        pairs = [(turn.user, turn.assistant) for turn in history]
        fit = fitted(system, pairs, self.message, passages[:most], self.talk.writer, reserve)
        if fit.dropped > self.dropped:
            # Told once, and dropped for good once the turn is kept.
            text = f"Il contesto del modello è pieno. Scambi più vecchi che non legge più: {fit.dropped}."
            yield Notice("history", text, fit.dropped)
            self.dropped = fit.dropped
        left = len(passages[:most]) - len(fit.passages)
        if left and most == writing.GIVEN:
            yield Notice("passages", f"Brani trovati che il modello non legge, per mancanza di spazio: {left}.", left)
        return fit.messages, fit.passages

    def _streamed(self, messages: Sequence[Message], checker: Checker | None) -> Iterator[Event]:
        """The model's words as they come, checked; on whatever end, its stream is closed."""
        assert self.talk.writer is not None
        pieces = self.talk.writer.stream(messages, self.sampling)
        try:
            for piece in pieces:
                if self.cancel.is_set():
                    raise _Cancelled
                if shown := checker.feed(piece) if checker else piece:
                    yield self._add(shown)
            self.cut = self.cut or getattr(self.talk.writer, "finish", "") == "length"
            if checker and (shown := checker.end()):
                yield self._add(shown)
        except StilnovoError:
            if checker and (shown := checker.end()):
                yield self._add(shown)
            raise
        finally:
            if checker:
                self.quotes += checker.quotes
            if isinstance(pieces, Generator):
                pieces.close()


def _nearest(library: Library) -> Callable[[str], list[Passage]]:
    """Finds the passages in which a quotation from memory may stand: those nearest to its own words."""
    return lambda claimed: [hit.passage for hit in search(library, claimed, LOOKED_THROUGH)]
