"""Evalita-LLM, the tasks with options: six tasks written in Italian, six prompts each (Magnini et al. 2025, arXiv 2502.02289).

Datasets: https://huggingface.co/evalitahf: textual entailment (RTE, EVALITA 2009), sentiment (SENTIPOLC 2016), hate speech
(HaSpeeDe 2 2020), admission tests of medical schools, word in context (WiC-ITA 2023), answers to frequent questions (QA4FAQ
2016). Licences: CC BY-NC-SA 4.0 as far as stated (textual entailment): not commercial, and each to be asked for at its card.
Rows (our own words): {"text1": "Anna corre.", "text2": "Anna si muove.", "entailment": "SI"}; {"text": "Che gioia!",
"opos": "1", "oneg": "0"}; {"full_text": "…", "hs": 0}; {"Question": "…", "A": "…", …, "E": "…", "Correct": "B"};
{"sentence1": "…", "start1": 3, "end1": 7, "sentence2": …, "label": 1}; {"question": "…", "A": "…", …, "D": "…",
"correct_answer": "C"}

Protocol: tasks `evalita-mp_te` to `evalita-mp_faq` of lm-evaluation-harness: the texts of its prompts are the benchmark, and
stand here as they are there. All six are asked with `--prompts all`, the first alone without. Metrics are theirs: accuracy;
F1 of "yes" for word in context and hate speech (though its files say macro); of sentiment the mean F1 over having or not having a
positive and a negative side (SENTIPOLC's). The summary of several prompts, the combined performance score, is printed beside
their spread. Its tasks with written answers are in `evalita_written.py`.
Checked: contexts, options and metrics equal the harness's on rows of this form (tests/test_evaluate_reference.py). Untried on
real rows, which were not at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stilnovo.benchmarks.dataset_files import Dataset, Row, build, letter_index, text
from stilnovo.benchmarks.task import Metric, MultipleChoice, Request, Task
from stilnovo.benchmarks.tasks.wic_ita import word_in


@dataclass(frozen=True)
class Wording:
    """One of a task's prompts: `question` with fields in braces, and its `options`; none where the row has them."""

    question: str
    options: tuple[str, ...] = ()


_IMPLIED = tuple(f"La frase 1{no} implica logicamente che la frase 2 sia vera" for no in ("", " non"))
_SENTIMENTS = ("Positivo", "Negativo", "Neutrale", "Misto")
_HATE = tuple(f"{no}contiene incitamento all'odio" for no in ("non ", ""))
_SAME = tuple(f"{no}hanno lo stesso significato" for no in ("non ", ""))
_YES_NO = "\nA: Sì\nB: No\nRisposta:"
_MOODS = "\nA: Positivo\nB: Negativo\nC: Neutro\nD: Misto\nRisposta:"
_FOUR = "\nA: {A}\nB: {B}\nC: {C}\nD: {D}"
_ENTAILMENT = "La frase: '{text1}' implica logicamente che la frase: '{text2}' sia vera?"
_SENTIMENT = "Qual è il sentiment espresso nel seguente tweet: '{text}'?"
_HATEFUL = "C'è incitamento all'odio nel seguente tweet: '{full_text}'?"
_MEDICAL = "Dato il seguente quesito di medicina: '{Question}' qual è la risposta corretta?"
_MEDICAL_IS = "Dato il seguente quesito di medicina '{Question}' la risposta corretta è:"
_WORD = "La parola: '{word1}' nella frase: '{sentence1}' "
_SAME_WORD = _WORD + "ha lo stesso significato della parola: '{word2}' nella frase: '{sentence2}'?"
_SAME_LETTER = (
    "La parola '{word1}' nella frase '{sentence1}' ha lo stesso significato della parola '{word2}' nella frase '{sentence2}'?"
    + _YES_NO
)
_TWO_WORDS = _WORD + "e la parola: '{word2}' nella frase: '{sentence2}'"
_ANSWER = "Rispondi alla seguente domanda: '{question}'"
_ANSWER_IS = "La risposta alla domanda: '{question}' è:"

# What stands before three of each task's prompts; the other three begin without.
_TASKS = {
    "te": ["Devi risolvere un compito di inferenza semantica. "] * 3,
    "sa": ["Devi svolgere un compito di analisi del sentiment. "] * 3,
    "hs": ["Devi svolgere un compito di identificazione di incitamento all'odio. "] * 3,
    "at": [f"Devi risolvere un compito {what}. " for what in ("di risposte a domande", "a scelta multipla", "di risposte a domande")],
    "wic": ["Devi determinare se una stessa parola usata in due frasi differenti ha lo stesso significato in entrambi i contesti. "] * 3,
    "faq": [f"Devi risolvere un compito {what}. " for what in ("di risposte a domande", "a scelta multipla", "di risposte a domande")],
}  # fmt: skip
_WORDINGS = {
    "te": (Wording(_ENTAILMENT, ("Sì", "No")), Wording(_ENTAILMENT + _YES_NO, ("A", "B")),
           Wording("Frase 1: '{text1}' Frase 2: '{text2}'", _IMPLIED)),
    "sa": (Wording(_SENTIMENT, _SENTIMENTS), Wording(_SENTIMENT + _MOODS, ("A", "B", "C", "D")),
           Wording("Il seguente tweet: '{text}' esprime un sentiment", _SENTIMENTS)),
    "hs": (Wording(_HATEFUL, ("Falso", "Vero")), Wording(_HATEFUL + "\nA: Vero\nB: Falso\nRisposta:", ("B", "A")),
           Wording("Il tweet: '{full_text}'", _HATE)),
    "at": (Wording(_MEDICAL), Wording(_MEDICAL + _FOUR + "\nE: {E}\nRisposta:", ("A", "B", "C", "D", "E")), Wording(_MEDICAL_IS)),
    "wic": (Wording(_SAME_WORD, ("No", "Sì")), Wording(_SAME_LETTER, ("B", "A")), Wording(_TWO_WORDS, _SAME)),
    "faq": (Wording(_ANSWER), Wording(_ANSWER + _FOUR + "\nRisposta:", ("A", "B", "C", "D")), Wording(_ANSWER_IS)),
}  # fmt: skip
# One prompt does not follow the rule: it asks yes or no where its sister asks true or false.
_EXCEPTIONS = {("hs", "4"): Wording(_TASKS["hs"][1] + _HATEFUL + _YES_NO, ("B", "A"))}


def wordings(task: str) -> dict[str, Wording]:
    """The six prompts of a task, `1` to `6`: each of three without, then with a sentence on the task before it."""
    found = {}
    for number, (wording, before) in enumerate(zip(_WORDINGS[task], _TASKS[task], strict=True)):
        found[str(2 * number + 1)] = wording
        longer = Wording(before + wording.question, wording.options)
        found[str(2 * number + 2)] = _EXCEPTIONS.get((task, str(2 * number + 2)), longer)
    return found


def _entailment(row: Row) -> int:
    return letter_index(str(row["entailment"]).upper().replace("Ì", "I"), ("SI", "NO"))


def _sentiment(row: Row) -> int:
    return letter_index(f"{row['opos']}{row['oneg']}", ("10", "01", "00", "11"))


def _binary(key: str) -> Callable[[Row], int]:
    def right(row: Row) -> int:
        value = row[key]
        return letter_index(f"{value:g}" if isinstance(value, int | float) else str(value), "01")

    return right


def _letter(key: str, letters: str) -> Callable[[Row], int]:
    return lambda row: letter_index(row[key], letters)


_RIGHT: dict[str, Callable[[Row], int]] = {
    "te": _entailment, "sa": _sentiment, "hs": _binary("hs"), "at": _letter("Correct", "ABCDE"), "wic": _binary("label"),
    "faq": _letter("correct_answer", "ABCD"),
}  # fmt: skip


def make_item(task: str, row: Row, place: str, prompt: str = "") -> MultipleChoice:
    """Convert a row of one of the tasks to a question."""
    wording, right = wordings(task)[prompt or "1"], _RIGHT[task](row)
    fields = {key: value for key, value in row.items() if isinstance(value, str)}
    if task == "wic":
        fields |= {f"word{number}": word_in(row, number) for number in (1, 2)}
    options: Sequence[str] = wording.options or [text(row, letter) for letter in "ABCDE" if letter in row]
    if not wording.options:
        right = options.index(options[right])  # of equals the first, as in the reference
    return MultipleChoice(
        id=str(row.get("id") or place),
        context=wording.question.format_map(fields),
        endings=tuple(f" {option}" for option in options),
        answer=right,
        cluster=str(row.get("lemma") or fields["word1"]) if task == "wic" else "",
    )


def _task(
    name: str, hub: str, metrics: tuple[Metric, ...], test: str = "test", examples: str = "dev", licence: str = ""
) -> Task:
    data = Dataset(f"evalita_{name}", f"evalitahf/{hub}", names={"test": (test,), "dev": (examples, "valid")})

    def load(request: Request) -> list[MultipleChoice]:
        return build(*data.rows(request), lambda row, place: make_item(name, row, place, request.prompt), request.split)

    return Task(
        name=f"evalita_{name}",
        version="1.0",
        source=f"https://huggingface.co/datasets/evalitahf/{hub}",
        licence=licence or "not stated here; see its card",
        metrics=metrics,
        splits=("test",),
        load=load,
        reference=f"evalita-mp_{name}",
        untried=True,
        prompts=tuple(wordings(name)),
        example_splits=("dev",),
    )


TASK = _task("te", "textual_entailment", ("acc", "acc_norm"), licence="CC BY-NC-SA 4.0: not commercial")
MORE = (
    _task("sa", "sentiment_analysis", ("polarity_f1", "acc"), examples="train"),
    _task("hs", "hatespeech_detection", ("f1_positive", "macro_f1", "acc"), test="test_all"),
    _task("at", "admission_test", ("acc", "acc_norm")),
    _task("wic", "word_in_context", ("f1_positive", "macro_f1", "acc")),
    _task("faq", "faq", ("acc", "acc_norm"), test="test_1", examples="dev_1"),
)
