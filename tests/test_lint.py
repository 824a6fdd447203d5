"""Each mistake that spoils a training silently is found, and what is learnt is exactly the assistant's."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import CHATML, SPECIALS, write_byte_tokenizer
from stilnovo.errors import InputError
from stilnovo.model.llama import Llama
from stilnovo.text import lint
from stilnovo.text.lint import PROBE, check
from stilnovo.text.template import Message
from stilnovo.text.tokenizer import Tokenizer, from_folder, from_tiktoken


def levels(tokenizer: Tokenizer) -> dict[str, str]:
    return {found.rule: found.level for found in lint.lint(tokenizer)}


def folder(tmp_path: Path, **settings: object) -> Tokenizer:
    write_byte_tokenizer(tmp_path, SPECIALS, **{"eos_token": "<|im_end|>", "chat_template": CHATML, **settings})
    return from_folder(tmp_path)


def test_exactly_the_assistants_turns_are_learnt(smollm2: tuple[Llama, Tokenizer]) -> None:
    _, tokenizer = smollm2
    ids, learnt = tokenizer.supervised(PROBE)
    assert ids == tokenizer.render(PROBE, generation=False)
    words = [*tokenizer.encode("Roma."), tokenizer.eos_id, *tokenizer.encode("Parigi, sulla Senna."), tokenizer.eos_id]
    assert [token for token, take in zip(ids, learnt, strict=True) if take] == words


def test_llama3_learns_the_end_of_turn(shared_data: Path) -> None:
    tokenizer = from_tiktoken(shared_data / "tokenizer_llama3" / "tokenizer.model")
    ids, learnt = tokenizer.supervised([Message("user", "Ciao"), Message("assistant", " Salve. ")])
    assert [t for t, take in zip(ids, learnt, strict=True) if take] == [*tokenizer.encode("Salve."), 128_009]
    assert check(tokenizer) == []


def test_an_answer_that_begins_with_a_blank_is_learnt_as_it_would_be_written(smollm2: tuple[Llama, Tokenizer]) -> None:
    _, tokenizer = smollm2
    talk = [Message("user", "Ciao"), Message("assistant", "\n  Salve")]
    ids, learnt = tokenizer.supervised(talk)
    prompt = tokenizer.render(talk[:1], generation=True)
    assert ids[: len(prompt)] == prompt
    assert learnt.index(True) == len(prompt)


def test_the_embedded_model_has_one_warning(smollm2: tuple[Llama, Tokenizer]) -> None:
    warnings = check(smollm2[1])
    assert [found.rule for found in warnings] == ["padding is not an end"]
    assert "<|im_end|>" in warnings[0].text


def test_a_model_of_plain_text_is_fit_for_documents(tmp_path: Path) -> None:
    tokenizer = folder(tmp_path, chat_template=None)
    assert [found.rule for found in check(tokenizer)] == ["end of turn inside the loss"]
    ids, learnt = tokenizer.supervised([Message("user", "a"), Message("assistant", "b")])
    assert (ids[-1], learnt[-1]) == (tokenizer.end_of_text_id, True)


def test_a_padding_token_that_is_an_end_is_told(tmp_path: Path) -> None:
    assert levels(folder(tmp_path, pad_token="<|im_end|>"))["padding is not an end"] == "warning"
    assert levels(folder(tmp_path, pad_token="<|im_start|>"))["padding is not an end"] == "ok"


def test_a_template_without_an_end_stops(tmp_path: Path) -> None:
    write_byte_tokenizer(tmp_path, ("<|endoftext|>", "<|im_start|>"), eos_token="<|endoftext|>", chat_template=CHATML)
    tokenizer = from_folder(tmp_path)  # `<|im_end|>` is only text in this vocabulary
    with pytest.raises(InputError, match="no end") as caught:
        check(tokenizer)
    assert len(str(caught.value).splitlines()) <= 3
    assert tokenizer.turn_end_id is None


def test_a_template_whose_turns_end_with_a_blank_line_is_told(tmp_path: Path) -> None:
    source = "{% for m in messages %}{{ '### ' + m['role'] + ':\n' + m['content'] + '\n\n' }}{% endfor %}"
    source += "{% if add_generation_prompt %}{{ '### assistant:\n' }}{% endif %}"
    tokenizer = folder(tmp_path, chat_template=source)
    assert [found.rule for found in check(tokenizer)] == ["end of turn inside the loss"]
    ids, learnt = tokenizer.supervised(PROBE)
    assert (ids[-1], learnt[-1]) == (tokenizer.end_of_text_id, True)


BROKEN = {
    "end outside the loss": (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% generation %}{{ m['content'] }}{% endgeneration %}"
        "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        "end of turn",
    ),
    "other prompt": (CHATML.replace("'<|im_start|>assistant\n'", "'<|im_start|>assistant:\n'"), "generation template"),
    "two openings": ("{{ bos_token + bos_token }}" + CHATML, "doubled"),
    "nothing of the conversation": ("[INST]", "leaves out"),
    "no template at all": (CHATML + "{% if %}", "no valid Jinja"),
    "refuses everything": (CHATML + "{{ raise_exception('no') }}", "cannot be used"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", BROKEN)
def test_broken_templates_stop(tmp_path: Path, mistake: str) -> None:
    source, rule = BROKEN[mistake]
    tokenizer = folder(tmp_path, chat_template=source, bos_token="<|endoftext|>")
    with pytest.raises(InputError, match=rule) as caught:
        check(tokenizer)
    assert len(str(caught.value).splitlines()) <= 3
    check(tokenizer, conversations=False)  # texts need no template
    assert tokenizer.document("Ciao")[-1] == tokenizer.end_of_text_id


def test_the_models_own_template_is_what_is_taught(tmp_path: Path) -> None:
    tokenizer = folder(tmp_path, chat_template=CHATML.replace("'<|im_end|>'", "'</s><|im_end|>'"))
    ids, learnt = tokenizer.supervised(PROBE)
    assert "Roma.</s><|im_end|>" in tokenizer.spelt([token for token, taken in zip(ids, learnt, strict=True) if taken])
    assert set(levels(tokenizer).values()) == {"ok"}


def test_a_template_that_takes_no_system_turn_is_told(tmp_path: Path) -> None:
    source = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
    )
    tokenizer = folder(tmp_path, chat_template=source)
    assert levels(tokenizer)["the chat template renders a conversation"] == "warning"
    assert [found.level for found in check(tokenizer)] == ["warning"]
    with pytest.raises(InputError, match="turn 1, system: System role not supported"):
        tokenizer.render(PROBE, generation=False)
