"""Coefficients of the chooser, fitted on the dev half of bench/questions; written by `bench/fit_chooser.py --write`.

Made 2026-11-29 at 6435b1003. Shares of questions of other works than those fitted on:

kind words, questions 238, section 0.706, sentence 0.248, shown 0.345, first 0.218, sure_share 0.0, sure_right 0 of 0,
unanswerable_sure 0 of 52, auroc 0.696, threshold 1.0
"""

#: What each feature counts in the ranking.
RANKING = {
    "words": {
        "words": 2.178,
        "around": 3.162,
        "passage": 1.983,
        "rank": 1.279,
        "work": 0.744,
        "first": 3.169,
        "place": 3.494,
        "asks": -1.165,
        "sign": 2.024,
    },
    "vectors": {
        "words": 2.178,
        "around": 3.162,
        "passage": 1.983,
        "rank": 1.279,
        "work": 0.744,
        "first": 3.169,
        "place": 3.494,
        "asks": -1.165,
        "sign": 2.024,
    },
}
#: What the ranking and the likeness in meaning count in the second one.
MEANING = {"score": 1.0, "cosine": 0.0}
#: What the signals count in the confidence.
CONFIDENCE = {
    "words": {"around": 1.673, "chance": 2.769, "lead": 0.071, "constant": -3.12},
    "vectors": {"around": 1.673, "chance": 2.769, "lead": 0.071, "constant": -3.12},
}
#: The confidence from which an answer is sure; none is where it is 1.
SURE = {"words": 1.0, "vectors": 1.0}
