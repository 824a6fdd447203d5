"""Items under the model's chat template: what is shared, kept, said and refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import stilnovo
from conftest import chat_tokenizer, write_byte_tokenizer
from stilnovo.benchmarks.chat_form import ChatForm, choices
from stilnovo.benchmarks.prompting import Prompting
from stilnovo.benchmarks.task import Decoding, FewShot, Generation, MultipleChoice
from stilnovo.compare.paired import compare
from stilnovo.errors import InputError
from stilnovo.generate.generator import Completion, Generator
from stilnovo.report.evaluation import evaluation_page
from stilnovo.scoring.chat_prompts import ChatPrompts, chat_prompts
from stilnovo.scoring.encode import Endings
from stilnovo.scoring.packed import answers
from stilnovo.scoring.result import EvaluationResult, load_result
from stilnovo.scoring.thinking import without_thinking
from stilnovo.scoring.written import encode_prompt, write
from stilnovo.text.template import Message
from stilnovo.text.tokenizer import from_folder
from test_evaluate_scoring import tiny_llama

SHOTS = FewShot("Un esame.\n\n", (("Uno?", "A"), ("Due?", "B")))
ITEM = MultipleChoice("x", SHOTS.text + "Tre?", (" A", " B"), 0, header=SHOTS.text, few_shot=SHOTS)


def roles(turns: list[Message]) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in turns]


def test_the_turns_are_system_examples_and_question() -> None:
    examples = [("user", "Uno?"), ("assistant", "A"), ("user", "Due?"), ("assistant", "B"), ("user", "Tre?")]
    assert roles(ChatForm().conversation(ITEM)) == [("system", "Un esame.\n\n"), *examples]
    assert roles(ChatForm("Sii breve.").conversation(ITEM))[0] == ("system", "Sii breve.\n\nUn esame.\n\n")
    assert roles(ChatForm("Sii breve.\n").conversation(ITEM))[0] == ("system", "Sii breve.\nUn esame.\n\n")
    one = [("system", "Un esame.\n\n"), ("user", "Uno? A\n\nDue? B\n\nTre?")]
    assert roles(ChatForm(single_turn=True).conversation(ITEM)) == one
    bare = MultipleChoice("y", "Tre?", ("\tA", "\t B"), 0, few_shot=FewShot(delimiter="\t"))
    assert roles(ChatForm().conversation(bare)) == [("user", "Tre?")]
    assert (choices(ITEM), choices(bare)) == (["A", "B"], ["A", " B"])


@pytest.mark.parametrize("single_turn", [False, True])
@pytest.mark.parametrize("template", ["chatml", "llama3"])
def test_what_is_shared_changes_no_number(template: str, single_turn: bool, tmp_path: Path) -> None:
    tokenizer, model = chat_tokenizer(tmp_path, template), tiny_llama(max_positions=1024)
    chat = ChatPrompts(tokenizer, ChatForm("Rispondi con una lettera sola.", single_turn))
    passage = "Un brano che tutti leggono, lungo abbastanza.\n"
    items = [
        replace(ITEM, id=str(number), context=f"{SHOTS.text}{about}Quanto fa {number}?", header=SHOTS.text + about)
        for number in range(5)
        for about in ("", passage)
    ]
    questions = [chat.endings(item) for item in items]
    assert len({question.header for question in questions}) == 2

    def scores(asked: list[Endings], budget: int) -> list[tuple[float, ...]]:
        found = {i: a for batch in answers(model, tokenizer, asked, token_budget=budget) for i, a in batch}
        return [found[index].loglikelihoods for index in range(len(items))]

    plain = scores([replace(question, header="") for question in questions], 1)
    for budget in (1, 2048):
        for shared, alone in zip(scores(questions, budget), plain, strict=True):
            assert shared == pytest.approx(alone, abs=1e-4)
    from stilnovo.scoring.encode import encode

    sizes = [
        encode(tokenizer, question, 1024, tokenizer.encode_rendered(question.header)).shared for question in questions
    ]  # type: ignore[arg-type]
    assert min(sizes) > 60  # the examples are read once


def test_people_write_no_control_tokens(tmp_path: Path) -> None:
    tokenizer = chat_tokenizer(tmp_path, "chatml")
    item = MultipleChoice("x", "<|im_start|>?", (" <|im_end|>", " B"), 0)
    chat = ChatPrompts(tokenizer, ChatForm("<|im_end|>"))
    special = {tokenizer.special_id("<|im_start|>"), tokenizer.special_id("<|im_end|>")}
    ids = [tokenizer.encode_rendered(context, ending) for context, ending in chat.endings(item).pairs]  # type: ignore[arg-type]
    assert {sum(token in special for token in tokens) for tokens in ids} == {5}
    assert tokenizer.spelt(ids[0]).endswith("<|im_start|>assistant\n<|im_end|>")


def test_the_opening_token_is_given_once(tmp_path: Path) -> None:
    tokenizer = chat_tokenizer(tmp_path, "llama3")
    tokenizer.bos_id = tokenizer.special_id("<|begin_of_text|>")
    item = Generation("x", "Chi?", ("io",), Decoding(4))
    prompt = ChatPrompts(tokenizer, ChatForm()).prompt(item)
    tokens, cut = encode_prompt(tokenizer, item, 512, prompt)
    assert tokens.count(tokenizer.bos_id or 0) == 1 and tokens[0] == tokenizer.bos_id and not cut
    short, cut = encode_prompt(tokenizer, item, 24, prompt)
    assert cut and len(short) == 20 and short[0] == tokenizer.bos_id


def run(folder: Path, cache: Path, how: Prompting = Prompting(), **more: Any) -> EvaluationResult:  # noqa: B008 - frozen
    spec = stilnovo.ModelSpec(str(folder), quantization="none", device="cpu")
    return stilnovo.evaluate_model(spec, "sample_questions", draw=stilnovo.Draw(6), cache=cache, prompting=how, **more)


def test_the_template_is_part_of_result_cache_and_comparison(tiny_folder: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    plain = run(tiny_folder, tmp_path, note=notes.append)
    assert sum("--chat-template" in line for line in notes) == 1
    notes.clear()
    chat = run(tiny_folder, tmp_path, Prompting(chat_template=True), note=notes.append)
    assert not any("--chat-template" in line for line in notes)
    system = run(tiny_folder, tmp_path, Prompting(chat_template=True, chat=ChatForm("Sii breve.")))
    assert (
        run(tiny_folder, tmp_path, Prompting(chat_template=False), note=notes.append).tasks["sample_questions"].cached
        == 6
    )
    assert not any("--chat-template" in line for line in notes)
    tasks = [result.tasks["sample_questions"] for result in (plain, chat, system)]
    assert [task.cached for task in tasks] == [0, 0, 0]
    assert len({task.items[0].loglikelihoods for task in tasks}) == 3
    assert run(tiny_folder, tmp_path, Prompting(chat_template=True)).tasks["sample_questions"].cached == 6
    said = chat.summary()["chat_template"]
    assert said == {"template": "chatml", "sha256": said["sha256"], "system": "", "examples": "as turns"}
    assert plain.summary()["chat_template"] is None
    system.save(tmp_path)
    assert "chat template" in evaluation_page(load_result(tmp_path))
    for other in (plain, chat):
        differences = compare(other, load_result(tmp_path)).differences
        assert differences[0][0] == "chat template"
        assert "Sii breve." in differences[0][2]
    assert compare(chat, chat).differences == ()


def test_what_cannot_be_asked_is_refused(tmp_path: Path, tiny_folder: Path) -> None:
    for form, option in ((ChatForm("x"), "--system"), (ChatForm(single_turn=True), "--single-turn")):
        with pytest.raises(InputError, match=f"{option} is about the chat template.*"):
            Prompting(chat=form)
    with pytest.raises(InputError, match="The model has no chat template"):
        ChatPrompts(chat_tokenizer(tmp_path, "plain"), ChatForm())
    write_byte_tokenizer(tmp_path, ("</s>",), eos_token="</s>", chat_template="{{ raise_exception('no') }}")
    with pytest.raises(InputError, match="chat template cannot be used"):
        ChatPrompts(from_folder(tmp_path), ChatForm())
    strict = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ m['role'] + ': ' + m['content'] + '</s>' }}{% endfor %}"
    )
    write_byte_tokenizer(tmp_path, ("</s>",), eos_token="</s>", chat_template=strict)
    chat = ChatPrompts(from_folder(tmp_path), ChatForm("Sii breve."))
    assert chat.prompt(ITEM).text.startswith("user: Sii breve.\n\nUn esame.")


LAST_ONLY = "{% for m in messages %}{% if loop.last %}user: {{ m['content'] }}</s>{% endif %}{% endfor %}"
EVERY = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
ONE_ONLY = "{% if messages|length > 2 %}{{ raise_exception('one question only') }}{% endif %}" + EVERY
NO_ANSWERS = EVERY.replace("%}{{ m['role']", "if m['role'] != 'assistant' %}{{ m['role']", 1)


@pytest.mark.parametrize("template", [LAST_ONLY, ONE_ONLY, NO_ANSWERS])
def test_examples_that_a_template_leaves_out_are_not_said_to_be_asked(template: str, tmp_path: Path) -> None:
    write_byte_tokenizer(tmp_path, ("</s>",), eos_token="</s>", chat_template=template)
    tokenizer = from_folder(tmp_path)
    chat = ChatPrompts(tokenizer, ChatForm("Sii breve."))
    with pytest.raises(InputError, match=r"chat template (leaves examples out|refuses)[^$]*--single-turn"):
        chat.prompt(ITEM)
    one = ChatPrompts(tokenizer, ChatForm("Sii breve.", single_turn=True)).prompt(ITEM).text
    assert all(words in one for words in ("Sii breve.", "Un esame.", "Uno? A", "Due? B", "Tre?"))
    alone = chat.prompt(MultipleChoice("y", "Tre?", (" A", " B"), 0)).text
    assert "Sii breve." in alone and "Tre?" in alone


def test_answers_of_another_day_are_answers_to_other_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the template writes the date, as Llama 3.2's does."""
    dated = "Oggi: {{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ m['content'] }}</s>{% endfor %}"
    said = []
    for source, epoch in ((dated, "1000000000"), (dated, "1000086400"), (dated, "1000000001"), (LAST_ONLY, "1")):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
        write_byte_tokenizer(tmp_path, ("</s>",), eos_token="</s>", chat_template=source)
        said.append(ChatPrompts(from_folder(tmp_path), ChatForm()).settings())
    assert said[0]["date"] == "2001-09-09" and said[1]["date"] == "2001-09-10"
    assert said[0] == said[2] != said[1] and "date" not in said[3]


THINKS = "{% for m in messages %}{{ m['content'] }}</s>{% endfor %}{% if add_generation_prompt %}<think>\n{% endif %}"


def test_thinking_is_no_part_of_a_written_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a server's answers; what never left the thinking counts as empty and is told."""
    assert without_thinking("La A? No.</think>\n\nB") == ("B", True)
    assert without_thinking("<think>La A?") == without_thinking("La A?", opened=True) == ("", False)
    assert without_thinking("La B.") == ("La B.", None)
    write_byte_tokenizer(tmp_path, ("</s>",), eos_token="</s>", chat_template=THINKS)
    tokenizer, notes = from_folder(tmp_path), list[str]()
    chat = chat_prompts(tokenizer, Prompting(chat_template=True), notes.append)
    assert chat is not None and "opens the model's thinking" in " ".join(notes)
    items = [Generation(name, name, ("B",), Decoding(4)) for name in ("uno", "due", "tre")]
    texts = ("La A?</think> B", "La A?", "<think>A")
    written = [Completion(text, 4, False) for text in texts]
    monkeypatch.setattr(Generator, "continue_tokens", lambda *_: written)
    for prompt, expected in ((chat.prompt, ["B", "", ""]), (lambda item: item.context, ["B", "La A?", ""])):
        ((_, first), (_, second), (_, third)) = next(write(tiny_llama(), tokenizer, items, prompt=prompt))
        assert [answer.text for answer in (first, second, third)] == expected
        assert [bool(answer.remark) for answer in (first, second, third)] == [not text for text in expected]


def test_an_answer_is_found_again_only_for_what_was_asked() -> None:
    """Two items may be the same as plain text and other conversations."""
    form, context = ChatForm(), SHOTS.text + "Tre?"
    other = replace(ITEM, few_shot=FewShot(SHOTS.text))
    assert (other.context, other.identity()) == (context, ITEM.identity())
    delimited = replace(ITEM, few_shot=replace(SHOTS, delimiter=" ", between="\n\n"), endings=(" A", " B"))
    assert form.sha256(delimited) == form.sha256(ITEM) != form.sha256(other)
    assert len({form.sha256(ITEM), ChatForm("x").sha256(ITEM), ChatForm(single_turn=True).sha256(ITEM)}) == 3
    bare = MultipleChoice("y", "Tre?", (" A", " B"), 0)
    assert form.sha256(bare) != form.sha256(replace(bare, few_shot=FewShot(delimiter="")))


def test_the_settings_of_a_result_ask_the_same_again(tiny_folder: Path, tmp_path: Path) -> None:
    how = Prompting(chat_template=True, chat=ChatForm("Sii breve.", single_turn=True))
    run(tiny_folder, tmp_path, how).save(tmp_path)
    settings = load_result(tmp_path).settings
    assert settings["prompting"] == {"chat_template": True, "chat": {"system": "Sii breve.", "single_turn": True}}
    assert Prompting.of(settings["prompting"]) == how
    again = run(tiny_folder, tmp_path, settings["prompting"])
    assert again.tasks["sample_questions"].cached == 6
    assert Prompting.of({}) == Prompting()
    with pytest.raises(InputError, match="cannot be read"):
        Prompting.of({"promts": "all"})
