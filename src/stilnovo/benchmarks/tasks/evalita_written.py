"""Evalita-LLM, the tasks with written answers: substitutes, entities, relations, summaries (Magnini et al. 2025, arXiv 2502.02289).

Datasets: https://huggingface.co/evalitahf: lexical substitution (EVALITA 2009), entities of three kinds of text (NERMuD 2023:
De Gasperi's papers, fiction, Wikinews), measurements in medical reports (CLinkaRT 2023), and ARTeLab/fanpage for summaries.
Licences: see each dataset's card; most forbid commercial use.
Rows (our own words): {"context": "Un <head>bel</head> gatto.", "answers": [{"word": "carino", "count": 3}]}; {"text": "Anna va a
Roma.", "entities": [{"entity_text": "Anna", "type": "PER"}]}; {"text": "…", "relations": [["12 g", "emoglobina"]]};
{"source": "…", "target": "…"}

Protocol: tasks `evalita-mp_ls`, `evalita-mp_ner_…`, `evalita-mp_re` and `evalita-mp_sum_fp` (also its small set) of
lm-evaluation-harness: two prompts each, greedy, at most 256 tokens. Answers are taken apart and scored by its rules, oddities
included: what is found must be equal letter by letter, blanks too; where more entities are named than there are, each that was
missed counts as a person; of the kinds of entity the last that occurs (usually "none") is left out of the mean; a summary's words are
those of ROUGE for English, which cuts them at accents. `found` is what single items have: the share of what was to be found.
Checked: prompts, targets and scores equal the harness's on rows of this form (tests/test_evaluate_evalita.py). Untried on real
rows, which were not at hand.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from stilnovo.benchmarks.dataset_files import Dataset, Row, build, text
from stilnovo.benchmarks.task import Decoding, Generation, Metric, Request, Task

DECODING = Decoding(max_tokens=256, stop=("</s>",))
ONE_LINE = Decoding(max_tokens=256, stop=("</s>", "\n"))
_NO_ENTITY, _NO_RELATION, _NO_SUBSTITUTE = "&&NOENT&&", "&&NOREL&&", "&&NOSYN&&"
_KINDS = {"PER": 0, "LOC": 1, "ORG": 2, "O": 3}

_PROMPTS = {
    "ls": (
        "Devi risolvere un compito di sostituzione lessicale. ",
        "Trova 10 parole che possono sostituire la parola racchiusa tra i marcatori <head> nella seguente frase: '{context}', "
        "mantenendo lo stesso significato. Elenca i lemmi (forme base) di queste parole, separandoli con una virgola, ad esempio: "
        "lemma1, lemma2, lemma3, lemma4, lemma5. Non aggiungere commenti o altro testo. Risposta:",
    ),
    "ner": (
        "Devi svolgere un compito di riconoscimento delle entità nei testi. ",
        "Estrai tutte le entità di tipo PER (persona), LOC (luogo) e ORG (organizzazione) dal testo seguente. Riporta ogni entità "
        "con il formato: Entità$Tipo, separando ciascuna coppia con ','. Se non ci sono entità da estrarre, rispondi con "
        "'&&NOENT&&'. Testo: '{text}' Entità:",
    ),
    "re": (
        "Devi svolgere un compito di estrazione di relazioni da documenti medici. ",
        "Dato un documento medico devi estrarre tutte le misurazioni degli esami medici presenti. Riporta ogni relazione nel "
        "formato: misurazione$esame, separando ciascuna coppia con '%'. Se non ci sono relazioni da estrarre, rispondi con "
        "'&&NOREL&&'. Testo: '{text}' Relazioni:",
    ),
    "sum": (
        "Devi risolvere un compito di sintesi automatica del testo. ",
        "Riassumi il seguente articolo di giornale: '{source}'\nRiassunto:",
    ),
}


def _substitutes(row: Row) -> tuple[str, list[Any]]:
    gold = [(str(answer["word"]), int(answer["count"])) for answer in row["answers"]]
    return ", ".join(word for word, _ in gold) or _NO_SUBSTITUTE, gold


def _entities(row: Row) -> tuple[str, list[Any]]:
    gold = [[str(entity["entity_text"]), str(entity["type"])] for entity in row["entities"]]
    if unknown := [kind for _, kind in gold if kind not in _KINDS]:
        raise ValueError(f"entities of kind {unknown[0]!r}")
    return ",".join(f"{name}${kind}" for name, kind in gold) or _NO_ENTITY, gold


def _relations(row: Row) -> tuple[str, list[Any]]:
    gold = [[str(first), str(second)] for first, second in row["relations"]]
    return "%".join(f"{first}${second}" for first, second in gold) or _NO_ENTITY, gold  # the harness's word for none


def _summary(row: Row) -> tuple[str, list[Any]]:
    return text(row, "target"), []


_GOLD: dict[str, Callable[[Row], tuple[str, list[Any]]]] = {
    "ls": _substitutes, "ner": _entities, "re": _relations, "sum": _summary,
}  # fmt: skip


def make_item(kind: str, row: Row, place: str, prompt: str = "") -> Generation:
    """Convert a row to a question; its references are the answer as an example would show it, and the key as JSON."""
    before, question = _PROMPTS[kind]
    target, gold = _GOLD[kind](row)
    asked = question.format_map({key: value for key, value in row.items() if isinstance(value, str)})
    return Generation(
        id=str(row.get("id") or place),
        context=before + asked if prompt == "2" else asked,
        references=(target, json.dumps(gold, ensure_ascii=False)),
        decoding=ONE_LINE if kind == "ner" else DECODING,
    )


def _key(item: Generation) -> list[Any]:
    return list(json.loads(item.references[1]))


def count_substitutes(written: str, item: Generation) -> tuple[float, ...]:
    """Share of the annotators' votes that the first ten words have, whether there is an answer, whether there are votes."""
    pieces = re.findall("[^,]+", written.split("\n")[0])
    given = [piece.strip().replace('"', "") for piece in pieces][:10]
    if given:
        given[-1] = "".join(filter(str.isalpha, given[-1]))
    gold = _key(item)
    votes = dict[str, int]()
    for word, number in gold:
        votes.setdefault(word, number)
    total = sum(number for _, number in gold)
    share = sum(votes.get(word, 0) for word in given) / total if total else 0.0
    return share, float(bool(given)), float(bool(gold))


def labels_of_entities(written: str, gold: list[list[str]]) -> list[tuple[int, int]]:
    """(right, given) kinds of entity, by the harness's rule: see the module."""
    if _NO_ENTITY in written:
        named: list[tuple[str, str]] = []
    elif written == "":
        named = [("W", "R")]
    else:
        parts = [part.strip().split("$") for part in written.split(",")]
        named = [(part[0], part[1].upper() if len(part) > 1 else "") for part in parts if part[0]]
    if not named and not gold:
        return [(3, 3)]
    many = len(named) > len(gold)
    found = [any((name, kind) == given for given in named) for name, kind in gold]
    labels = [
        (_KINDS[kind], _KINDS[kind] if right else 0 if many else 3)
        for (_, kind), right in zip(gold, found, strict=True)
    ]
    return labels + [(3, 2)] * (len(named) - len(gold) if many else 0)


def labels_of_relations(written: str, gold: list[list[str]]) -> list[tuple[int, int]]:
    """(right, given), 1 for a relation: those found, missed and, where there are more than in the key, too many."""
    if _NO_RELATION in written or not gold:
        given = int(bool(gold) is False and _NO_RELATION not in written)
        return [(1, 0)] * len(gold) or [(0, given)]
    parts = [part.split("$") for part in written.split("%")] if written else []
    named: list[Any] = [(part[0].strip(), part[1].strip() if len(part) > 1 else "") for part in parts] or ["WRONG"]
    labels = []
    for relation in gold:
        hits = [index for index, given in enumerate(named) if tuple(given)[:2] == tuple(relation)]
        for index in hits:
            named[index] = None
        named = [("DELETED", "DELETED") if given is None else given for given in named]
        labels.append((1, int(bool(hits))))
    spare = named[: max(0, len(named) - len(gold))]
    return labels + [(0, 1) for given in spare if given != ("DELETED", "DELETED")]


def _table(labels: list[tuple[int, int]], classes: int) -> tuple[float, ...]:
    cells = Counter(right * classes + given for right, given in labels)
    return tuple(float(cells[cell]) for cell in range(classes * classes))


def count_entities(written: str, item: Generation) -> tuple[float, ...]:
    """Table of right by given kinds of entity, 4 x 4."""
    return _table(labels_of_entities(written, _key(item)), 4)


def count_relations(written: str, item: Generation) -> tuple[float, ...]:
    """Table of right by given relations, 2 x 2."""
    return _table(labels_of_relations(written, _key(item)), 2)


def grade_substitutes(written: str, item: Generation) -> dict[Metric, float]:
    """Share of the annotators' votes that were found; each word's votes once, though the harness counts a word that is repeated twice."""
    return {"found": min(1.0, count_substitutes(written, item)[0])}


def _grade_labels(labels: list[tuple[int, int]], none: int) -> dict[Metric, float]:
    asked = [given == right for right, given in labels if right != none]
    return {"found": sum(asked) / len(asked) if asked else float(all(given == none for _, given in labels))}


def grade_entities(written: str, item: Generation) -> dict[Metric, float]:
    """Share of the entities that were found; of a text without any, whether none was named."""
    return _grade_labels(labels_of_entities(written, _key(item)), 3)


def grade_relations(written: str, item: Generation) -> dict[Metric, float]:
    """Share of the relations that were found; of a text without any, whether none was named."""
    return _grade_labels(labels_of_relations(written, _key(item)), 0)


def grade_summary(written: str, item: Generation) -> dict[Metric, float]:
    """ROUGE-1: F1 over words, letters without accents and digits as the measure's English tokeniser cuts them."""
    given, wanted = (Counter(re.findall("[a-z0-9]+", side.lower())) for side in (written, item.references[0]))
    shared = 2 * (given & wanted).total()
    return {"rouge1": shared / (given.total() + wanted.total()) if shared else 0.0}


def _task(
    name: str, kind: str, hub: str, metrics: tuple[Metric, ...], grade: Callable[[str, Generation], dict[Metric, float]],
    count: Callable[[str, Generation], tuple[float, ...]] | None = None, *, config: str = "default", test: str = "test",
    examples: str = "dev", reference: str = "",
) -> Task:  # fmt: skip
    data = Dataset(f"evalita_{name}", hub, config, names={"test": (test,), "dev": (examples,)})

    def load(request: Request) -> list[Generation]:
        return build(*data.rows(request), lambda row, place: make_item(kind, row, place, request.prompt), request.split)

    return Task(
        name=f"evalita_{name}",
        version="1.0",
        source=f"https://huggingface.co/datasets/{hub}",
        licence="not stated here; see its card",
        metrics=metrics,
        splits=("test",),
        load=load,
        grade=grade,
        count=count,
        reference=reference or f"evalita-mp_{name}",
        untried=True,
        prompts=("1", "2"),
        example_splits=("dev",),
    )


def _entity_task(config: str) -> Task:
    return _task(
        f"ner_{config}", "ner", "evalitahf/entity_recognition", ("entity_f1", "found"), grade_entities, count_entities,
        config=config, test="reduced_test", examples="trial", reference=f"evalita-mp_ner_tasks_{config}",
    )  # fmt: skip


TASK = _task(
    "ls", "ls", "evalitahf/lexical_substitution", ("substitution_f1", "found"), grade_substitutes, count_substitutes
)
MORE = (
    *map(_entity_task, ("adg", "fic", "wn")),
    _task("re", "re", "evalitahf/relation_extraction", ("macro_f1", "found"), grade_relations, count_relations),
    _task("sum_fp", "sum", "ARTeLab/fanpage", ("rouge1",), grade_summary),
    _task("sum_fp_small", "sum", "evalitahf/summarization-fp", ("rouge1",), grade_summary, test="test_100"),
)
