"""What the files beside a `tokenizer.json` add to it: the chat template, the named tokens, tokens that only they list.

Read as transformers reads them. Unusual: a token with which the chat template opens or ends turns counts as special here even where
its file does not say so (many tunes add `<|im_start|>` as an ordinary word): otherwise a text could hold it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Fast

from stilnovo.errors import reported
from stilnovo.text.chat_template import ChatTemplate

_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def tokenizer_settings(path: Path) -> dict[str, Any]:
    """Read a JSON object, empty where there is no such file.

    Raises:
        InputError: when it cannot be read or is no object.
    """
    with reported(f"{path} cannot be read.", "Download the model again.", errors=(OSError, ValueError, TypeError)):
        return dict(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def named_tokens(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """The special tokens by transformers' names (`bos_token`, …): those that a chat template may write."""
    older = {} if "added_tokens_decoder" in settings else tokenizer_settings(folder / "special_tokens_map.json")
    values = {name: older.get(name) or settings.get(name) for name in _NAMED}
    named = {name: value["content"] if isinstance(value, dict) else value for name, value in values.items()}
    return {name: value for name, value in named.items() if isinstance(value, str)}


def chat_template_of(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The model's chat template: its own file, else what the settings say; of several named ones the default."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        with reported(f"{path} cannot be read.", "Download the model again.", errors=(OSError, ValueError)):
            return path.read_text(encoding="utf-8")
    found = settings.get("chat_template")
    if not found or isinstance(found, str):
        return found or None
    advice = "Put the model's own chat_template.jinja into its folder."
    with reported(
        f"{folder} has a chat template that cannot be read.", advice, errors=(KeyError, TypeError, ValueError)
    ):
        entries = found.items() if isinstance(found, dict) else [(entry["name"], entry["template"]) for entry in found]
        named = {str(name): str(template) for name, template in entries}
    if "default" in named or len(named) == 1:
        return named["default"] if "default" in named else next(iter(named.values()))
    names = ", ".join(sorted(named))
    return f"{{{{ raise_exception({f'The model has several chat templates ({names}) and calls none of them default.'!r}) }}}}"


def with_listed_tokens(fast: Fast, settings: Mapping[str, Any], named: Mapping[str, str]) -> Fast:
    """Add the tokens that the settings list beside the vocabulary, and make the named ones of the vocabulary special."""
    known = {repr(token) for token in fast.get_added_tokens_decoder().values()}
    listed = sorted(
        (int(index), AddedToken(**token)) for index, token in settings.get("added_tokens_decoder", {}).items()
    )
    fast.add_tokens([token for _, token in listed if repr(token) not in known])
    spelt = {token.content for token in fast.get_added_tokens_decoder().values()}
    missing = [
        token for token in dict.fromkeys(named.values()) if token not in spelt and fast.token_to_id(token) is not None
    ]
    fast.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in missing])
    return fast


def with_turn_tokens(fast: Fast, source: str, named: Mapping[str, str]) -> Fast:
    """Make the tokens special with which the chat template opens and ends turns."""
    added = fast.get_added_tokens_decoder().values()
    ordinary = {token.content for token in added if not token.special and not token.content.isspace()}
    if not any(token in source for token in ordinary):
        return fast
    turned = ordinary & ChatTemplate(source, named, [token.content for token in added]).written(generation=False)
    if not turned:
        return fast
    definition = json.loads(fast.to_str())
    for token in definition["added_tokens"]:
        token["special"] = token["special"] or token["content"] in turned
    return Fast.from_str(json.dumps(definition))
