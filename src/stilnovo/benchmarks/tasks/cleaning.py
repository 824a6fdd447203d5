"""The reference's cleaning of HellaSwag's text, which it applies to ARC's and TruthfulQA's translations as well."""

from __future__ import annotations

import re


def clean(text: str) -> str:
    """Without WikiHow's marks: ` [title]` ends a sentence, other square brackets go with what is in them."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")
