"""Conversations that are longer than a pack: cut at their turns, and no step is spent on what teaches nothing."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stilnovo.data.conversations import Conversation, Preference
from stilnovo.data.packing import IntArray, PackedCorpus, Pieces, beginnings, coded, cut, pack
from stilnovo.data.pairs import pack_pairs
from stilnovo.data.pieces import at_turns, without_idle
from stilnovo.data.prepare import prepare
from stilnovo.data.work import PreparationSettings
from stilnovo.errors import InputError
from stilnovo.recipe import Recipe
from stilnovo.runlog import RunFolder
from stilnovo.text.template import MarkedMessage, Message
from stilnovo.text.tokenizer import Tokenizer, open_tokenizer
from stilnovo.train.corpus import Corpus, supervised, supervised_all
from stilnovo.train.objectives.base import objective_of, read_corpus
from stilnovo.train.run import TrainingRun

ROOM = 64


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> Tokenizer:
    return open_tokenizer(str(tiny_folder))


def made_talk(random: random.Random, number: int) -> Conversation:
    """A conversation of one to five exchanges, questions and answers from a word to three packs long, some not learnt."""

    def text() -> str:
        return "".join(random.choices("abcdefgh ", k=random.choice((1, 5, 20, 40, ROOM, 3 * ROOM)))).strip() or "x"

    turns: list[Message] = [Message("system", text())] if random.random() < 0.4 else []
    for _ in range(random.randint(1, 5)):
        answer = text()
        is_marked = random.random() < 0.2
        turns += [
            Message("user", text()),
            MarkedMessage("assistant", answer) if is_marked else Message("assistant", answer),
        ]
    if not any(turn.has_loss for turn in turns):
        turns[-1] = Message("assistant", turns[-1].content)
    return Conversation(str(number), tuple(turns))


def pieces_of(documents: list[IntArray], room: int = ROOM) -> Pieces:
    lengths = np.array([len(document) for document in documents])
    return at_turns(cut(lengths, room), documents, range(len(documents)), room)


def tokens_of(pieces: Pieces, documents: list[IntArray]) -> list[tuple[int, IntArray]]:
    """Document of each piece, and its tokens: inputs and the last target."""
    arrays = zip(pieces.document.tolist(), pieces.start.tolist(), pieces.length.tolist(), strict=True)
    return [(at, documents[at][start : start + length + 1]) for at, start, length in arrays]


@pytest.mark.parametrize("seed", range(40))
def test_every_answer_is_learnt_once_in_pieces_that_fit_and_teach(seed: int, tokenizer: Tokenizer) -> None:
    """The kind, on tokens alone: what a prepared corpus holds, or what was split at its messages before."""
    draw = random.Random(seed)
    documents = [supervised(made_talk(draw, number), tokenizer) for number in range(6)]
    pieces = pieces_of(documents)
    predicted: list[list[int]] = [[] for _ in documents]
    for at, tokens in tokens_of(pieces, documents):
        targets = tokens[1:]
        assert 0 < len(targets) <= ROOM
        assert (targets >= 0).any(), "a piece that teaches nothing"
        predicted[at] += targets[targets >= 0].tolist()
    assert predicted == [document[document >= 0].tolist() for document in documents]


@pytest.mark.parametrize("seed", range(40))
def test_an_answer_that_fits_stands_with_its_question(seed: int, tokenizer: Tokenizer) -> None:
    draw = random.Random(1000 + seed)
    documents = [supervised(made_talk(draw, number), tokenizer) for number in range(6)]
    for at, tokens in tokens_of(pieces_of(documents), documents):
        learnt = documents[at] >= 0
        longest = max(map(len, "".join("x" if one else " " for one in learnt).split()))
        if longest <= ROOM // 2:
            assert tokens[0] < 0, "the piece begins within an answer"


@pytest.mark.parametrize("seed", range(20))
def test_split_at_the_messages(seed: int, tokenizer: Tokenizer) -> None:
    """As files of conversations are read: each piece begins with the system turn, and every answer is there once."""
    draw = random.Random(2000 + seed)
    for number in range(6):
        talk = made_talk(draw, number)
        whole, pieces = supervised(talk, tokenizer), supervised_all([talk], tokenizer, ROOM)
        answers = np.concatenate([piece[1:][piece[1:] >= 0] for piece in pieces])
        assert answers.tolist() == whole[whole >= 0].tolist()
        system = talk.messages[0].content if talk.messages[0].role == "system" else ""
        for piece in pieces:
            if len(piece) - 1 < ROOM:  # no question lost its beginning
                assert system in tokenizer.decode(np.where(piece < 0, ~piece, piece).tolist())


def test_what_fits_is_packed_as_ever(tokenizer: Tokenizer) -> None:
    draw = random.Random(3)
    talks = [made_talk(draw, number) for number in range(40)]
    documents = [document for talk in talks if len(document := supervised(talk, tokenizer)) <= 512]
    packs = pieces_of(documents, 512).packed(512)
    expected = pack(documents, 512).packs
    for name in ("document", "start", "length", "offsets"):
        np.testing.assert_array_equal(getattr(packs, name), getattr(expected, name))


@pytest.mark.parametrize(
    ("learnt", "expected"),
    [
        ("__xx__xx_", [(0, 3), (4, 3)]),  # two exchanges; what follows the last answer is not read
        ("____________xx", [(9, 4)]),  # a long question loses its beginning
        ("__xxxxxxxxx", [(0, 4), (4, 4), (8, 2)]),  # a long answer is cut like a text
        ("x________x", [(5, 4)]),  # the first token is never predicted: nothing to learn there
        ("x_________", []),
        ("__________", []),
    ],
)  # fmt: skip
def test_pieces_by_hand(learnt: str, expected: list[tuple[int, int]]) -> None:
    document = coded(range(len(learnt)), [mark == "x" for mark in learnt])
    pieces = pieces_of([document], 4)
    assert list(zip(pieces.start.tolist(), pieces.length.tolist(), strict=True)) == expected
    assert pieces.idle == (not expected)


def test_truncated_rows_without_an_answer_are_left_out() -> None:
    documents = [coded(range(8), [mark == "x" for mark in marks]) for marks in ("__xx____", "______xx", "xxxxxxxx")]
    rows = without_idle(beginnings(np.array([8, 8, 8]), 4), documents, [0, 1])
    assert rows.document.tolist() == [0, 2]
    assert rows.lines(4) == ["1 pieces of conversations without any loss token were left out"]


def recipe(model: Path, source: Path, **changes: Any) -> Recipe:
    return Recipe.model_validate({
        "model": {"name": str(model), "quantization": "none", "device": "cpu"}, "lora": {"r": 2},
        "data": {"paths": [str(source)], "pack_tokens": ROOM, "held_out": 0, **changes.pop("data", {})},
        "train": {"task": "sft", "batch_packs": 1, "accumulation": 1, "epochs": 1, **changes},
    })  # fmt: skip


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Long questions with short answers, long talks, and a long answer."""
    path = tmp_path_factory.mktemp("talks") / "talks.jsonl"
    rows = [[("user", "domanda " * 40), ("assistant", f"Risposta {at}.")] for at in range(6)]
    rows += [[("user", f"Chi è {at}?"), ("assistant", f"È {at}.")] * 8 for at in range(4)]
    rows += [[("user", "Racconta."), ("assistant", "parola " * 30)]]
    lines = [{"messages": [{"role": role, "content": said} for role, said in turns]} for turns in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def prepared_talks(talks: Path, tokenizer: Tokenizer) -> Path:
    return prepare(PreparationSettings((str(talks),)), tokenizer, "tiny", talks.parent / "prepared").folder


def read(chosen: Recipe, tokenizer: Tokenizer) -> Corpus:
    return read_corpus(objective_of(chosen), tokenizer)


@pytest.mark.parametrize(("source", "task"), [("rows", "sft"), ("prepared", "sft"), ("prepared", "text")])
def test_no_step_learns_nothing(
    source: str, task: str, talks: Path, prepared_talks: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    data = talks if source == "rows" else prepared_talks
    run = TrainingRun(recipe(tiny_folder, data, task=task), tmp_path)
    run.train()
    rows = RunFolder(tmp_path).metrics()
    assert len(rows) == len(run.corpus.packed.packs) == run.trainer.steps
    assert all(row["loss"] > 0 and row["gradient_norm"] > 0 for row in rows)
    said = "\n".join(run.corpus.remarks)
    assert "lost their beginning" in said
    assert "at their turns" in said


def test_a_prepared_corpus_learns_the_answers_of_its_rows(
    talks: Path, prepared_talks: Path, tiny_folder: Path, tokenizer: Tokenizer
) -> None:
    def answers(data: Path) -> list[int]:
        corpus = read(recipe(tiny_folder, data), tokenizer).packed
        pieces = corpus.packs.pieces(range(len(corpus.packs)))
        targets = [corpus.documents[at][start + 1 : start + length + 1] for at, start, length in pieces]
        return sorted(np.concatenate([each[each >= 0] for each in targets]).tolist())

    assert answers(prepared_talks) == answers(talks)


def test_nothing_but_questions_is_said(prepared_talks: Path, tiny_folder: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(
        InputError, match=r"(?s)Nothing is left to learn from.*without any loss token.*data\.pack_tokens"
    ):
        read(recipe(tiny_folder, prepared_talks, data={"rows": "truncated", "pack_tokens": 16}, task="text"), tokenizer)


def test_a_run_of_other_packs_is_not_resumed(talks: Path, tiny_folder: Path, tmp_path: Path) -> None:
    """Earlier versions cut long conversations anywhere: a position in their packs would mean other rows now."""
    chosen = recipe(tiny_folder, talks)
    TrainingRun(chosen, tmp_path).train()
    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "packs": 1}), encoding="utf-8")
    with pytest.raises(InputError, match=r"(?s)packed otherwise.*were 1\."):
        TrainingRun(chosen, tmp_path, resume=True)


def idle_packs(packed: PackedCorpus) -> int:
    """Number of packs without a loss token."""
    pieces = (packed.packs.pieces([pack]) for pack in range(len(packed.packs)))
    targets = ([packed.documents[at][start + 1 : start + length + 1] for at, start, length in each] for each in pieces)
    return sum(not any((piece >= 0).any() for piece in each) for each in targets)


@pytest.mark.parametrize("letters", range(100, 100 + ROOM))
def test_held_out_packs_have_something_to_measure(letters: int, tiny_folder: Path, tokenizer: Tokenizer) -> None:
    """Of an answer that ends with a pack, what follows its turn is no pack of its own."""
    objective = objective_of(recipe(tiny_folder, Path("none")))
    talk = Conversation("1", (Message("user", "Racconta."), Message("assistant", "x" * letters)))
    packed = objective.pack_held_out([talk], tokenizer, 512)
    assert len(packed.packs) > 1
    assert idle_packs(packed) == 0


@pytest.mark.parametrize("seed", range(20))
def test_pairs_that_are_taken_teach(seed: int, tokenizer: Tokenizer) -> None:
    draw = random.Random(3000 + seed)
    pairs = []
    for number in range(8):
        *prompt, answer = made_talk(draw, number).messages
        pairs.append(
            Preference(str(number), tuple(Message(turn.role, turn.content) for turn in prompt), answer.content, "No.")
        )
    packed = pack_pairs(pairs, tokenizer, 4 * ROOM)
    assert packed.tally.taken + sum(packed.tally.left.values()) == len(pairs)
    assert idle_packs(packed.corpus) == 0
    assert all((document[1:] >= 0).any() for document in packed.corpus.documents)
