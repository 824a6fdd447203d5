"""Which passages are read for a question: found by its words, by kindred words, and by the names it asks about."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from stilnovo.chat.question import Question
from stilnovo.chat.terms import Terms
from stilnovo.library.index import Sought
from stilnovo.library.records import Passage, Work
from stilnovo.library.search import search, search_for
from stilnovo.library.store import Library
from stilnovo.text.italian import fold, stem, tokens

#: Passages read for a question's words; early mentions of whom it asks about; passages looked through for an alias.
READ, INTRODUCTIONS, ALIASES = 40, 60, 30
#: Works that a name is taken to belong to, at most.
MEANT = 2
_NAMED = r"(?P<name>[A-ZÀ-Þ][a-zà-ÿ]{2,}(?: [A-ZÀ-Þ][a-zà-ÿ]{2,})?)"


@dataclass(frozen=True)
class Candidate:
    """A passage to read, and what its rank in the search and its work are worth."""

    passage: Passage
    bonus: float


def named_works(question: Question, library: Library) -> list[Work]:
    """The works a question names by their title: *nei Promessi sposi*, *in Malombra*."""
    asked = {stem(token.form) for token in tokens(question.text)}
    found = []
    for work in library.works():
        title = [token.form for token in tokens(work.title) if len(token.form) > 2]
        if title and {stem(form) for form in title} <= asked and (len(title) > 1 or title[0] in question.names):
            found.append(work)
    return found


def unknown_names(question: Question, library: Library) -> list[str]:
    """Names and numbers of the question that stand nowhere in the library, as the question writes them."""
    found = []
    for token in tokens(question.text)[1:]:
        named = token.form in question.names or token.form.isdigit()
        if named and not (
            library.index.mentions(token.form) or library.index.match(Sought(context=(stem(token.form),)), 1)
        ):
            found.append(question.text[token.start : token.end])
    return found


def gather(question: Question, terms: Terms, library: Library, works: Sequence[int]) -> list[Candidate]:
    """Passages for a question, within some works if given: by its words, by kindred words, by whom it asks about.

    A name belongs to the work that speaks of it most, and is introduced where it stands first.
    """
    hits = search(library, question.text, READ, works)
    bonus = {hit.passage.id: 0.15 * hit.score / hits[0].score for hit in hits}
    found = {hit.passage.id: hit.passage for hit in hits}
    related = Sought(stem=tuple(terms.related()))
    found |= {hit.passage.id: hit.passage for hit in search_for(library, related, READ, works)}
    if names := terms.names:
        by_work = library.index.mentions(names[0])
        by_work = {work: ids for work, ids in by_work.items() if not works or work in works}
        most = max((len(ids) for ids in by_work.values()), default=1)
        # What is said of somebody often stands where nobody is named: the rest of the question, in the works that name them.
        about = [work for work, ids in by_work.items() if len(ids) * 3 >= most][:MEANT]
        if about and set(about) != set(works):
            found |= {hit.passage.id: hit.passage for hit in search(library, question.text, READ // 2, about)}
        for ids in by_work.values() if question.being else ():
            if len(ids) * 3 >= most:
                for i, number in enumerate(ids[:INTRODUCTIONS]):
                    bonus[number] = bonus.get(number, 0.0) + 0.3 / (1 + 0.5 * i)
        found |= {passage.id: passage for passage in library.passages([n for n in bonus if n not in found])}
        for number, passage in found.items():
            share = len(by_work.get(passage.section.work.id, ())) / most
            bonus[number] = bonus.get(number, 0.0) + 0.2 * share
    return [Candidate(passage, bonus.get(number, 0.0)) for number, passage in found.items()]


def aliases(
    question: Question, terms: Terms, library: Library, works: set[int]
) -> dict[int, dict[str, frozenset[str]]]:
    """Who is meant by *il guardiano*, *l'armatore*: names that a work sets beside the word, by work and term.

    *Cosimo Altieri, l'armatore del brigantino* and *la fornaia Ersilia* are such places. The name found most often
    counts, and only for words that the question uses with an article.
    """
    found: dict[int, dict[str, frozenset[str]]] = {work: {} for work in works}
    for term in terms.words:
        if term in terms.exact or not re.search(
            rf"\b(?:il|lo|la|l|del|dello|della|dell|al|alla|all) (?:\w+ )?{term}\b", question.folded
        ):
            continue
        beside: dict[int, Counter[str]] = {}
        word = rf"{re.escape(term[:-1])}\w\b"
        places = re.compile(
            rf"{_NAMED}, (?:(?:il|lo|la|un|una|uno) |l['’])(?:\w+ )?{word}|\b(?:il|lo|la|l['’]) ?{word} {_NAMED.replace('name', 'other')}"
        )
        numbers = [number for number, _ in library.index.match(Sought(stem=(terms.stems[term],)), ALIASES)]
        for passage in library.passages(numbers):
            for match in places.finditer(passage.text):
                counter = beside.setdefault(passage.section.work.id, Counter())
                counter[match.group("name") or match.group("other")] += 1
        for work, counter in beside.items():
            if work in found:
                found[work][term] = frozenset(fold(counter.most_common(1)[0][0]).split())
    return found
