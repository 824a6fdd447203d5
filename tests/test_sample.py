"""The shipped sample holds what it promises."""

from __future__ import annotations

import re
from collections import Counter

from stilnovo.data.conversations import read_conversations, read_preferences
from stilnovo.io import sample
from stilnovo.io.rows import read_rows


def test_counts_and_lengths() -> None:
    entries = [row for name in sample.ENCYCLOPAEDIA for row in read_rows(sample.path(name))]
    assert len(entries) >= 60
    assert all(len(row["text"]) >= 1000 and row["title"] and row["url"] for row in entries)
    assert len(read_rows(sample.path("questions.jsonl"))) == 60
    assert len(read_rows(sample.path("completions.jsonl"))) == 40
    assert len(read_rows(sample.path("prompts.jsonl"))) == 30
    novella = sample.path("library/il_faro_di_pietranera.txt").read_text(encoding="utf-8")
    assert len(re.findall(r"^Capitolo [IVX]+$", novella, re.MULTILINE)) == 10
    for name in (
        *sample.ENCYCLOPAEDIA,
        "questions.jsonl",
        "completions.jsonl",
        "prompts.jsonl",
        "library_questions.jsonl",
        "conversations.jsonl",
        "pairs.jsonl",
    ):
        assert max(Counter(row["id"] for row in read_rows(sample.path(name))).values()) == 1


def test_conversations_and_pairs_are_read_whole() -> None:
    conversations, left = read_conversations(["sample-chat"])
    assert len(conversations) == 24 and not left.left
    assert sum(talk.messages[0].role == "system" for talk in conversations) == 2
    assert sum(len(talk.messages) > 3 for talk in conversations) >= 4, "some have several turns"
    pairs, left = read_preferences(["sample-pairs"])
    assert len(pairs) == 12 and not left.left
    said = Counter(message.content for talk in conversations for message in talk.messages)
    assert max(said.values()) == 1


def test_answers_are_balanced() -> None:
    assert set(Counter(row["answer"] for row in read_rows(sample.path("questions.jsonl"))).values()) == {15}
    assert set(Counter(row["label"] for row in read_rows(sample.path("completions.jsonl"))).values()) == {10}
    for row in read_rows(sample.path("questions.jsonl")):
        assert len({row[f"option_{letter}"] for letter in "abcd"}) == 4


def test_no_sentence_stands_twice() -> None:
    texts = [row["text"] for name in sample.ENCYCLOPAEDIA for row in read_rows(sample.path(name))]
    texts += [path.read_text(encoding="utf-8") for path in sample.library_texts()]
    sentences = [s.strip() for text in texts for s in re.split(r"(?<=[.!?»])\s+", text) if len(s) > 30]
    assert max(Counter(sentences).values()) == 1


def test_library_quotes_stand_in_their_section() -> None:
    texts = {
        path.read_text(encoding="utf-8").splitlines()[0]: path.read_text(encoding="utf-8")
        for path in sample.library_texts()
    }
    for row in read_rows(sample.path("library_questions.jsonl")):
        assert row["quote"] in texts[row["work"]].split(f"\n{row['section']}\n")[1], row["id"]
