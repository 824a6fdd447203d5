"""Coefficients of the chooser, fitted on the dev half of bench/questions; written by bench/fit_chooser.py.

Made 2026-11-29 at f8b7e7bfa. Shares of questions of other works than those fitted on:

kind words, questions 238, section 0.718, sentence 0.256, shown 0.345, first 0.202, sure_share 0.0, sure_right 0 of 0,
unanswerable_sure 0 of 52, auroc 0.706, threshold 1.0

kind vectors, questions 238, section 0.727, sentence 0.282, shown 0.387, first 0.244, sure_share 0.0, sure_right 0 of
0, unanswerable_sure 0 of 52, auroc 0.623, threshold 1.0
"""

#: What each feature counts in the ranking.
RANKING = {
    "words": {"words": 4.674, "passage": 2.548, "rank": 1.396, "first": 3.178, "place": 3.081, "sign": 1.871},
    "vectors": {"words": 4.481, "passage": 0.884, "rank": 2.271, "first": 2.693, "place": 3.354, "sign": 2.237},
}
#: What the ranking and the likeness in meaning count in the second one.
MEANING = {"score": 0.594, "cosine": 0.853}
#: What the signals count in the confidence.
CONFIDENCE = {
    "words": {"chance": 2.128, "lead": 0.197, "passage": 1.707, "constant": -3.365},
    "vectors": {"chance": 1.255, "cosine": 13.583, "lead": 0.278, "passage": 1.184, "constant": -14.198},
}
#: The confidence from which an answer is sure; none is where it is 1.
SURE = {"words": 1.0, "vectors": 1.0}
