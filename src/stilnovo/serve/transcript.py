"""A conversation as a file to keep: Markdown for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from stilnovo.serve.history import ConversationSummary, Stored

_STATUS = {
    "it": {"verified": "verificata", "repaired": "corretta sulla fonte", "unverified": "non verificata"},
    "en": {"verified": "verified", "repaired": "corrected from the source", "unverified": "unverified"},
}
_WORDS = {
    "it": {"quotes": "Citazioni", "stopped": "interrotta", "failed": "non conclusa", "interrupted": "interrotta"},
    "en": {"quotes": "Quotations", "stopped": "stopped", "failed": "not finished", "interrupted": "interrupted"},
}


def as_json(heading: ConversationSummary, messages: Sequence[Stored]) -> str:
    """The whole conversation, indented."""
    content = {**asdict(heading), "messages": [asdict(message) for message in messages]}
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def as_markdown(heading: ConversationSummary, messages: Sequence[Stored], language: str = "it") -> str:
    """Questions as headings, answers as text, quotations as footnotes with what was found of them."""
    words, statuses = _WORDS.get(language, _WORDS["it"]), _STATUS.get(language, _STATUS["it"])
    parts = [f"# {' '.join(heading.title.split()) or 'stilnovo'}", f"*{heading.created[:10]}*"]
    for message in messages:
        if message.role == "user":
            parts.append("\n".join(f"> **{line}**" if line else ">" for line in message.text.splitlines()))
            continue
        parts.append(message.text)
        if message.status in words:
            parts.append(f"*({words[message.status]})*")
        if citations := message.details.get("citations"):
            lines = [f"- «{c['shown']}» {c['citation']} [{statuses[c['status']]}]" for c in citations]
            parts.append(f"{words['quotes']}:\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"
