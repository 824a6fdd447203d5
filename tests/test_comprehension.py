"""Questions made of a text: each answer is checked against the text by means of its own."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import pytest

from stilnovo.data.comprehension import BLANK, MOST_QUESTIONS, QUESTIONS, Asked, Excerpt, ask, comprehension, excerpt_of
from stilnovo.data.sources import Document, read_documents
from stilnovo.io import sample
from stilnovo.io.bad_rows import Tally
from stilnovo.io.rows import read_rows

SAMPLE = [
    Document(row["id"], row["title"], row["text"])
    for name in sample.ENCYCLOPAEDIA
    for row in read_rows(sample.path(name))
]


def check(asked: Asked, excerpt: Excerpt) -> None:
    """The answer follows from the text, found again without the code that made it."""
    text, (request, _, shown) = excerpt.text, asked.question.partition("\n\n")
    match asked.kind:
        case "title":
            assert asked.answer == excerpt.title
        case "definition":
            assert text.startswith(asked.answer)
            assert excerpt.title.lower() in asked.answer[: len(excerpt.title) + 5].lower()
        case "word" | "number" | "name":
            assert shown.count(BLANK) == 1
            assert shown.replace(BLANK, asked.answer) in text
            assert asked.answer not in shown
            first = {"word": r"[a-zà-ÿ]", "number": r"\d", "name": r"[A-ZÀ-Ý]"}[asked.kind]
            assert re.match(first, asked.answer)
        case "next":
            options = dict(re.findall(r"^([A-D])\. (.+)$", shown, re.MULTILINE))
            before = re.search(r"«(.+)»", request)
            assert before is not None
            assert 3 <= len(options) == len(set(options.values()))
            after = text[text.index(before[1]) + len(before[1]) :].lstrip()
            assert [f"{letter}. {o}" for letter, o in options.items() if after.startswith(o)] == [asked.answer]
        case "first":
            one, other = re.findall(r"^– (.+)$", shown, re.MULTILINE)
            assert asked.answer == (one if text.index(one) < text.index(other) else other)
        case "statement":
            assert (shown in text) == asked.answer.startswith("Sì")
            assert asked.answer.startswith(("Sì", "No"))
        case "mention":
            name = re.search(r"«(.+)»", request)
            assert name is not None
            assert text.count(name[1]) == 1
            assert name[1] in asked.answer
            assert asked.answer in text
        case kind:
            pytest.fail(f"a kind that nothing checks: {kind}")


def test_every_answer_stands_in_the_text_and_every_kind_comes_in_several_phrasings() -> None:
    kinds: Counter[str] = Counter()
    phrasings: dict[str, set[str]] = {}
    answers: Counter[str] = Counter()
    for seed in range(20):
        for number, document in enumerate(SAMPLE):
            rng = random.Random(f"{seed} {number}")
            excerpt = excerpt_of(document, rng, SAMPLE[number - 1].text.split(". ")[1] + ".")
            assert excerpt is not None
            asked = ask(excerpt, rng)
            assert 2 <= len({one.kind for one in asked}) == len(asked) <= MOST_QUESTIONS
            for one in asked:
                check(one, excerpt)
                kinds[one.kind] += 1
                phrasings.setdefault(one.kind, set()).add(re.sub("«.+»", "", one.question.partition("\n\n")[0]))
                if one.kind == "statement":
                    answers[one.answer[:2]] += 1
    assert set(kinds) == set(QUESTIONS)
    assert min(map(len, phrasings.values())) >= 4
    assert min(answers["Sì"], answers["No"]) > 0.3 * answers.total()


def test_conversations_hold_the_text_and_are_the_same_for_the_same_seed() -> None:
    tally = Tally()
    found = comprehension(SAMPLE, 7, 0.5, tally)
    assert len(found) == tally.taken == round(0.5 * len(SAMPLE)) - tally.left.total()
    assert found == comprehension(SAMPLE, 7, 0.5)
    assert [talk.id for talk in found] != [talk.id for talk in comprehension(SAMPLE, 8, 0.5)]
    by_id = {f"comprehension-{document.id}": document for document in SAMPLE}
    continued = 0
    for talk in found:
        roles = [message.role for message in talk.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        shown = talk.messages[0].content.partition("\n\n")[2]
        text = by_id[talk.id].text
        if len(roles) == 2:  # a text to go on with: both parts follow each other in the document
            continued += 1
            at = text.index(shown) + len(shown)
            assert text[at:].lstrip().startswith(talk.messages[1].content)
        else:
            assert shown.partition("\n\n")[0] in text
    assert 0 < continued < len(found) / 2
    assert len(comprehension(SAMPLE, 7, 1.0)) > len(found)
    assert comprehension(SAMPLE, 7, 0.0) == []


def test_what_is_too_short_or_torn_is_left_out_and_counted() -> None:
    good = SAMPLE[0]
    torn = "Il valore , pari a ( , ) volte il primo: Il secondo è maggiore di tutti gli altri qui.\n" * 8
    documents = [Document("1", "Breve", "Una frase sola, che non basta a nessuno."), Document("2", "", torn), good]
    tally = Tally()
    found = comprehension(documents, 1, 1.0, tally)
    assert [talk.id for talk in found] == [f"comprehension-{good.id}"]
    assert tally.left == {"too short for questions": 2}
    assert tally.places["too short for questions"][0] == "document 1: Breve"
    assert comprehension([], 1, 1.0) == []


def test_of_a_long_document_whole_sentences_are_read() -> None:
    text = " ".join(document.text for document in SAMPLE[:20])
    starts = set()
    for seed in range(20):
        excerpt = excerpt_of(Document("1", "Tutto", text), random.Random(seed))
        assert excerpt is not None
        assert excerpt.text in text
        assert 1200 < len(excerpt.text) <= 1800
        assert excerpt.text.endswith((".", "!", "?", "»"))
        assert excerpt.whole == text.startswith(excerpt.text)
        starts.add(text.index(excerpt.text))
    assert len(starts) > 5


def test_real_passages(shared_data: Path) -> None:
    documents = read_documents([shared_data / "wikipedia_it" / "passages.jsonl"], 400)
    tally = Tally()
    found = comprehension(documents, 3, 1.0, tally)
    assert tally.taken == len(found) > 250
    kinds: Counter[str] = Counter()
    for number, document in enumerate(documents):
        rng = random.Random(number)
        excerpt = excerpt_of(document, rng, documents[number - 1].text[:60])
        for one in ask(excerpt, rng) if excerpt else ():
            check(one, excerpt)  # type: ignore[arg-type]
            kinds[one.kind] += 1
    assert len(kinds) >= 6  # these passages have no titles
