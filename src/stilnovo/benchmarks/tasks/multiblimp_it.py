"""Minimal pairs in Italian: of two sentences that differ in one form, which one does the model find more probable?

Datasets: MultiBLiMP 1.0 (Jumelet et al. 2025; agreement of verbs, made from treebanks),
https://huggingface.co/datasets/jumelet/multiblimp (configuration `ita`, split train, 2,999 pairs); licences of the
treebanks, some of which forbid commercial use. And `blimp_it`: pairs in the form of BLiMP (Warstadt et al. 2020), for
BLiMP-IT (Barbini et al. 2025), whose own file was not at hand: JSONL in `blimp_it/test.jsonl`.
Rows (our own words): {"sen": "I gatti dormono.", "wrong_sen": "I gatti dorme.", "phenomenon": "SV-#", "verb": "dormono", …};
{"sentence_good": "I gatti dormono.", "sentence_bad": "I gatti dorme.", "linguistics_term": "agreement", "UID": "sv_1"}

Protocol: task `multiblimp_ita` 0.0 of lm-evaluation-harness: whole sentences without a prompt, 0-shot; a pair is right
where the right sentence has the higher log-likelihood (`acc`; per character `acc_norm`). The first token is predicted from
the opening token, or from the end-of-text token of a model that has none. The breakdown is by phenomenon; pairs of one
right sentence are a cluster.
Checked: contexts and choices equal the harness's on rows of this form (tests/test_evaluate_reference.py). Untried on real
rows, which were not at hand.
"""

from __future__ import annotations

from stilnovo.benchmarks.dataset_files import Dataset, Row, text
from stilnovo.benchmarks.task import FewShot, MultipleChoice, Task

DATA = Dataset(
    folder="multiblimp_it",
    hub="jumelet/multiblimp",
    config="ita",
    names={"test": ("train",)},
    files={"test": ("ita.tsv", "ita/data.tsv", "data.tsv", "ita.jsonl")},
)
DATA_BLIMP = Dataset(folder="blimp_it")
_ALONE = FewShot(delimiter="")


def make_item(row: Row, place: str) -> MultipleChoice:
    """Convert a row of MultiBLiMP to a pair, the right sentence first."""
    return _pair(place, text(row, "sen"), text(row, "wrong_sen"), str(row.get("phenomenon") or ""))


def make_blimp_item(row: Row, place: str) -> MultipleChoice:
    """Convert a row in BLiMP's form to a pair, the right sentence first."""
    kinds = (row.get(key) for key in ("linguistics_term", "phenomenon", "UID"))
    return _pair(place, text(row, "sentence_good"), text(row, "sentence_bad"), str(next(filter(None, kinds), "")))


def _pair(place: str, right: str, wrong: str, kind: str) -> MultipleChoice:
    if right == wrong:
        raise ValueError("both sentences of a pair are the same")
    return MultipleChoice(
        id=place,
        context="",
        endings=(right, wrong),
        answer=0,
        cluster=right,
        category=kind,
        lengths=(len(right), len(wrong)),
        few_shot=_ALONE,
    )


TASK = Task(
    name="multiblimp_it",
    version="0.0",
    source="https://huggingface.co/datasets/jumelet/multiblimp",
    licence="the treebanks', some not commercial",
    metrics=("acc", "acc_norm"),
    splits=("test",),
    load=DATA.loader(make_item),
    reference="multiblimp_ita",
    categories="phenomenon",
    untried=True,
)
TASK_BLIMP = Task(
    name="blimp_it",
    version="1.0",
    source="https://ceur-ws.org/Vol-4112/",
    licence="not known",
    metrics=("acc", "acc_norm"),
    splits=("test",),
    load=DATA_BLIMP.loader(make_blimp_item),
    categories="phenomenon",
    untried=True,
)
