"""Rows as people have them: every shape, every kind of file, marks on turns, and what is said of columns that are not read."""

from __future__ import annotations

import pytest

from stilnovo.text.template import TEMPLATES, AssistantText, MarkedMessage, Message, Special, TemplatePiece

ROME = Message("user", "Chi la scrisse?")
DANTE = Message("assistant", "Dante.")


def spelt(pieces: list[TemplatePiece]) -> list[str]:
    return [piece.token if isinstance(piece, Special) else str(piece) for piece in pieces]


@pytest.mark.parametrize("template", TEMPLATES)
def test_marks_change_the_loss_and_no_piece(template: str) -> None:
    talk = [ROME, DANTE, Message("user", "E poi?"), Message("assistant", "Boh.")]
    marked = [ROME, MarkedMessage("assistant", "Dante."), MarkedMessage("user", "E poi?", learnt=True), talk[3]]
    pieces = TEMPLATES[template](marked, generation=False)
    assert spelt(pieces) == spelt(TEMPLATES[template](talk, generation=False))
    learnt = "".join(piece for piece in pieces if isinstance(piece, AssistantText))
    assert "Dante." not in learnt
    assert "E poi?" in learnt
    assert learnt.endswith("Boh.")
    ends = [
        piece.learnt for piece in pieces if isinstance(piece, Special) and piece.token in ("<|im_end|>", "<|eot_id|>")
    ]
    assert ends[-4:] == ([] if template == "plain" else [False, False, True, True])
