"""Italian or English, told by function words: for the form of a model's answer, and for pages that say a text's language."""

from __future__ import annotations

import re

_FUNCTION_WORDS = {
    code: frozenset(re.findall(r"\w+", words))
    for code, words in (
        (
            "it",
            "il lo gli le un uno una di del della dei delle degli che è non con sono nel nella più anche questo questa si da dal"
            " al alla ai su sul tra fra ma se quando dove perché molto essere ha hanno può suo sua loro cui",
        ),
        (
            "en",
            "the of and to is that it for are with as this be you your an can by from was were has have not they their there"
            " which what when will would should these those its at",
        ),
    )
}


def language(text: str) -> str:
    """Detect the language, `it` or `en`, by function words; empty where undecided."""
    words = re.findall(r"[a-zà-ù]+", text.lower())
    counts = {code: sum(word in known for word in words) for code, known in _FUNCTION_WORDS.items()}
    return max(counts, key=counts.__getitem__) if len(set(counts.values())) > 1 else ""
