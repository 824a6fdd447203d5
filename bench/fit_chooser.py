"""Fit the coefficients by which sentences are chosen and by which an answer is called sure; show what each is worth.

    python bench/fit_chooser.py --library FILE [--write] [--ablation]

FILE is a library of the works of `bench/questions`, with vectors for the coefficients of search by meaning
(`stilnovo library add … --library FILE`, `stilnovo library embed --library FILE`); without vectors only those by words are fitted.
Only questions of the dev half are read. Every figure is of questions of other works than those it was fitted on (five parts, by
work). `--write` puts the coefficients into `src/stilnovo/chat/coefficients.py`; `--ablation` fits again without each feature.

The ranking is a conditional logit: the log of the share of exp(score) that the right candidates have among all, less a
quadratic penalty. The confidence is a logistic regression on the ranking's own signals, fitted on rankings of questions of
other works, unanswerable ones among them; *sure* begins where `RIGHT` of the sure answers were right.

Needs: stilnovo[bench].
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from gold import ANSWERABLE, UNANSWERABLE, Gold, Place, asked, overlaps
from stilnovo.chat.choose import REREAD, Ranked, ranked, shown_span, signals
from stilnovo.chat.evidence import FEATURES, Candidate, Evidence
from stilnovo.chat.question import Question
from stilnovo.library.store import Library
from stilnovo.progress import Progress
from stilnovo.runlog import environment, write_atomic

TARGET = Path(__file__).parents[1] / "src" / "stilnovo" / "chat" / "coefficients.py"
PARTS, SEED = 5, 17
PENALTY, CONFIDENCE_PENALTY = 10.0, 5.0
#: Of the sure answers so many must be right; of the unanswerable questions at most so many may be sure.
RIGHT, FALSE, FEWEST = 0.9, 0.05, 10

Array = NDArray[np.float64]
Weights = dict[str, float]


@dataclass
class Case:
    """A question with its candidates; `right` of each, by overlap of what is shown of it; the part it is in."""

    row: dict[str, Any]
    evidence: Evidence
    places: list[Place]
    sections: set[int]
    part: int = 0
    right: Array = field(default_factory=lambda: np.zeros(0))
    values: Array = field(default_factory=lambda: np.zeros((0, len(FEATURES))))

    @property
    def answerable(self) -> bool:
        return bool(self.places)


class Remembered(Evidence):
    """Evidence that embeds each sentence once."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._known: dict[tuple[int, int], float] = {}

    def cosines(self, candidates: Any) -> list[float]:
        missing = [one for one in candidates if (one.passage.id, one.start) not in self._known]
        for one, cosine in zip(missing, super().cosines(missing), strict=True):
            self._known[one.passage.id, one.start] = cosine
        return [self._known[one.passage.id, one.start] for one in candidates]


def cases(library: Library) -> list[Case]:
    """The questions of the dev half with their candidates, in parts by work."""
    from stilnovo.chat.understanding import understood

    gold, made = Gold(library), []
    rows = [*asked(ANSWERABLE, "dev"), *asked(UNANSWERABLE, "dev")]
    works = sorted({row.get("work", "") for row in rows})
    random.Random(SEED).shuffle(works)
    with Progress("candidates", len(rows)) as progress:
        for done, row in enumerate(rows):
            scope = understood(row["question"], library)
            evidence = Remembered(Question(scope.rest or row["question"]), library, scope.works, scope.sections)
            places = gold.places(row) if "span" in row else []
            case = Case(row, evidence, places, gold.sections(places), works.index(row.get("work", "")) % PARTS)
            case.right = np.array([meets(case, one) for one in evidence.candidates], dtype=float)
            case.values = np.array([c.values for c in evidence.candidates]).reshape(-1, len(FEATURES))
            made.append(case)
            progress.update(done)
    return made


def conditional_logit(groups: Sequence[tuple[Array, Array]], penalty: float) -> Array:
    """Coefficients of a ranking, from (values, right) of each question; the columns are scaled while it is fitted."""
    groups = [(values, right) for values, right in groups if right.any()]
    scale = np.concatenate([values for values, _ in groups]).std(axis=0) + 1e-9

    def loss(b: Array) -> tuple[float, Array]:
        value, gradient = penalty / 2 * float(b @ b), penalty * b
        for values, right in groups:
            scores = values / scale @ b
            p = np.exp(scores - scores.max())
            p /= p.sum()
            q = p * right
            value -= float(np.log(q.sum() + 1e-300))
            gradient = gradient - (q / (q.sum() + 1e-300) - p) @ (values / scale)
        return value, gradient

    fitted = minimize(loss, np.zeros(len(scale)), jac=True, method="L-BFGS-B").x
    return np.asarray(fitted / scale, dtype=float)


def logistic(values: Array, right: Array, penalty: float) -> Array:
    """Coefficients and, last, the constant of a logistic regression."""
    middle, scale = values.mean(axis=0), values.std(axis=0) + 1e-9
    x = np.hstack([(values - middle) / scale, np.ones((len(values), 1))])

    def loss(b: Array) -> tuple[float, Array]:
        z = x @ b
        p = 1 / (1 + np.exp(-z))
        value = float(np.logaddexp(0, z).sum() - right @ z) + penalty / 2 * float(b[:-1] @ b[:-1])
        return value, x.T @ (p - right) + penalty * np.append(b[:-1], 0.0)

    b = minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B").x
    slopes = b[:-1] / scale
    return np.append(slopes, b[-1] - slopes @ middle)


@dataclass(frozen=True)
class Model:
    """Coefficients of the two rankings; `meaning` is None where there are no vectors."""

    weights: Weights
    meaning: Weights | None

    def rank(self, case: Case) -> list[Ranked]:
        return ranked(case.evidence, self.weights, self.meaning)


def fit(made: Sequence[Case], vectors: bool, leave_out: str = "") -> Model:
    """Fit the rankings on some cases."""
    kept = [i for i, name in enumerate(FEATURES) if name != leave_out]
    b = conditional_logit([(case.values[:, kept], case.right) for case in made if case.answerable], PENALTY)
    weights = dict.fromkeys(FEATURES, 0.0) | {list(FEATURES)[i]: float(value) for i, value in zip(kept, b, strict=True)}
    if not vectors or leave_out == "meaning":
        return Model(weights, None)
    groups = []
    for case in made:
        if case.answerable:
            rows = ranked(case.evidence, weights)[:REREAD]
            cosines = np.array(case.evidence.cosines([row.candidate for row in rows]))
            scaled = (cosines - cosines.mean()) / (cosines.std() or 1.0) if len(rows) else cosines
            values = np.stack([np.array([row.score for row in rows]), scaled], axis=1)
            groups.append((values, np.array([meets(case, row.candidate) for row in rows], dtype=float)))
    score, cosine = conditional_logit(groups, PENALTY / 10)
    return Model(weights, {"score": float(score), "cosine": float(cosine)})


def meets(case: Case, candidate: Candidate, alone: bool = False) -> bool:
    """Whether what is shown of a candidate, or its sentence alone, meets a right place."""
    passage = candidate.passage
    start, end = (candidate.start, candidate.end) if alone else shown_span(candidate)
    return overlaps(case.places, passage.section.work.id, passage.start + start, passage.start + end)


def first_three(rows: Sequence[Ranked]) -> list[Ranked]:
    """The best candidate of each of the first three passages."""
    best: dict[int, Ranked] = {}
    for row in rows:
        best.setdefault(row.candidate.passage.id, row)
    return list(best.values())[:3]


@dataclass(frozen=True)
class Outcome:
    """What became of one question: by section, by sentence, by what is shown."""

    case: Case
    signs: Weights
    section: bool
    sentence: bool
    shown: bool
    first: bool


def outcome(case: Case, model: Model) -> Outcome | None:
    rows = model.rank(case)
    if not rows:
        return None
    three = first_three(rows)
    return Outcome(
        case, signals(rows, case.evidence),
        section=any(row.candidate.passage.section.id in case.sections for row in three),
        sentence=any(meets(case, row.candidate, alone=True) for row in three),
        shown=any(meets(case, row.candidate) for row in three),
        first=meets(case, three[0].candidate),
    )  # fmt: skip


def cross_fitted(made: Sequence[Case], vectors: bool, leave_out: str = "") -> list[Outcome]:
    """Outcomes of all cases, each by a model of the other parts."""
    found = []
    for part in range(PARTS):
        model = fit([case for case in made if case.part != part], vectors, leave_out)
        found += [outcome(case, model) for case in made if case.part == part]
    return [one for one in found if one is not None]


def rates(found: Sequence[Outcome], total: int) -> Weights:
    """Shares of the answerable questions."""
    answerable = [one for one in found if one.case.answerable]
    names = ("section", "sentence", "shown", "first")
    return {name: round(sum(getattr(one, name) for one in answerable) / max(1, total), 3) for name in names}


def confidence(found: Sequence[Outcome]) -> tuple[Weights, Array]:
    """The logistic regression on all outcomes, and the probability of each by one of the other parts."""
    names = sorted({name for one in found for name in one.signs})
    values = np.array([[one.signs[name] for name in names] for one in found])
    varies = values.std(axis=0) > 0
    names, values = [name for name, there in zip(names, varies, strict=True) if there], values[:, varies]
    right, part = np.array([float(one.first) for one in found]), np.array([one.case.part for one in found])
    held_out = np.zeros(len(found))
    for each in range(PARTS):
        b = logistic(values[part != each], right[part != each], CONFIDENCE_PENALTY)
        held_out[part == each] = 1 / (1 + np.exp(-(values[part == each] @ b[:-1] + b[-1])))
    b = logistic(values, right, CONFIDENCE_PENALTY)
    return {**dict(zip(names, map(float, b[:-1]), strict=True)), "constant": float(b[-1])}, held_out


def threshold(found: Sequence[Outcome], chances: Array) -> float:
    """The least probability from which on enough of at least FEWEST sure answers are right, and few unanswerable questions sure.

    1, which no answer reaches, where there is none.
    """
    right = np.array([one.first for one in found])
    answerable = np.array([one.case.answerable for one in found])
    for least in np.unique(chances):
        sure = chances >= least
        judged = right[sure & answerable]
        if (
            len(judged) >= FEWEST
            and judged.mean() >= RIGHT
            and (sure & ~answerable).sum() <= FALSE * (~answerable).sum()
        ):
            return float(least)
    return 1.0


def report(kind: str, found: Sequence[Outcome], chances: Array, least: float, total: int) -> dict[str, Any]:
    """Figures of one kind of library."""
    right = np.array([one.first for one in found])
    answerable = np.array([one.case.answerable for one in found])
    sure = chances >= least
    order = np.argsort(chances)
    ranks = np.empty(len(chances))
    ranks[order] = np.arange(len(chances))
    wrong, good = ranks[~right], ranks[right]
    auroc = float((good[:, None] > wrong[None, :]).mean()) if len(good) and len(wrong) else 0.0
    return {
        "kind": kind, "questions": total, **rates(found, total),
        "sure_share": round(float(sure[answerable].sum() / max(1, total)), 3),
        "sure_right": f"{int(right[sure & answerable].sum())} of {int((sure & answerable).sum())}",
        "unanswerable_sure": f"{int(sure[~answerable].sum())} of {int((~answerable).sum())}",
        "auroc": round(auroc, 3), "threshold": round(least, 3),
    }  # fmt: skip


def written(
    models: dict[str, Model], confidences: dict[str, Weights], least: Weights, figures: list[dict[str, Any]]
) -> str:
    """The module with the coefficients."""

    def short(weights: Weights) -> Weights:
        return {name: round(value, 3) for name, value in weights.items()}

    made = environment()
    facts = [
        "\n".join(textwrap.wrap(", ".join(f"{key} {value}" for key, value in one.items()), 118)) for one in figures
    ]
    meaning = next((model.meaning for model in models.values() if model.meaning), {"score": 1.0, "cosine": 0.0})
    tables = (
        ("What each feature counts in the ranking.", "RANKING", {kind: short(m.weights) for kind, m in models.items()}),
        ("What the ranking and the likeness in meaning count in the second one.", "MEANING", short(meaning)),
        ("What the signals count in the confidence.", "CONFIDENCE", {k: short(w) for k, w in confidences.items()}),
        ("The confidence from which an answer is sure; none is where it is 1.", "SURE", short(least)),
    )
    head = (
        '"""Coefficients of the chooser, fitted on the dev half of bench/questions; written by bench/fit_chooser.py.\n\n'
        f"Made {made['date'][:10]} at {str(made['commit'])[:9]}. Shares of questions of other works than those fitted on:\n\n"
    )
    body = "".join(f"#: {about}\n{name} = {json.dumps(value)}\n" for about, name, value in tables)
    return head + "\n\n".join(facts) + '\n"""\n\n' + body


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, required=True)
    parser.add_argument("--write", action="store_true", help="Write the coefficients into the package.")
    parser.add_argument("--ablation", action="store_true", help="Fit again without each feature.")
    options = parser.parse_args()
    models: dict[str, Model] = {}
    confidences: dict[str, Weights] = {}
    least: Weights = {}
    figures: list[dict[str, Any]] = []
    with Library.open(options.library) as library:
        kinds = ["words", "vectors"] if library.searching() else ["words"]
        searching = library.searching
        for kind in kinds:
            library.searching = searching if kind == "vectors" else lambda: None  # type: ignore[method-assign]
            vectors, made = kind == "vectors", cases(library)
            total = sum(case.answerable for case in made)
            found = cross_fitted(made, vectors)
            models[kind] = fit(made, vectors)
            confidences[kind], chances = confidence(found)
            least[kind] = threshold(found, chances)
            figures.append(report(kind, found, chances, least[kind], total))
            print(json.dumps(figures[-1], ensure_ascii=False))
            for name in ([*FEATURES, "meaning"] if vectors else FEATURES) if options.ablation else ():
                print(f"  without {name}: {rates(cross_fitted(made, vectors, name), total)}", flush=True)
    if len(kinds) == 1:
        print("The library has no vectors: coefficients by words only.", file=sys.stderr)
        models["vectors"], confidences["vectors"], least["vectors"] = (
            models["words"],
            confidences["words"],
            least["words"],
        )
    if options.write:
        write_atomic(TARGET, written(models, confidences, least, figures))


if __name__ == "__main__":
    main()
