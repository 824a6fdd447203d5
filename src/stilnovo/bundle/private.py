"""Take out of a run's files what belongs to a machine or a person: paths, host names, keys.

Facts (settings, commands, environments) lose every absolute path: what lay below the folder in which the bundle is made stays
relative to it, of others the last part of the name stays. Answers that a model wrote are another thing: there only strings
that are known to be paths of this machine are replaced, since a slash in a text is seldom one.
"""

from __future__ import annotations

import ipaddress
import platform
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Keys under which a model's own words or a benchmark's ids stand, and no facts.
FREE_TEXT = frozenset({"items", "samples", "answers", "prompt", "answer", "text"})
REMOVED = "[removed]"

_WHOLE_PATH = re.compile(r"(/(?!/)|~[\w.-]*(/|$)|[A-Za-z]:[\\/]|\\\\)")
_PATH_IN_TEXT = re.compile(
    r"(?<![\w.:/~\\-])(?:~[\w.-]*/[^\s\"'<>|;,()\[\]{}]*|/(?!/)[^\s\"'<>|;,()\[\]{}/]+(?:/[^\s\"'<>|;,()\[\]{}/]*)+"
    r"|[A-Za-z]:\\[^\s\"'<>|;,()\[\]{}]+|\\\\[^\s\"'<>|;,()\[\]{}]+)"
)
_SECRET_NAME = re.compile(r"(?i)(^|[_-])(api[_-]?key|token|secret|password|passwd|authorization|credentials?)$")
_SECRETS = re.compile(
    r"\b(?:hf_\w{16,}|sk-[\w-]{16,}|gh[pousr]_\w{16,}|github_pat_\w{16,}|xox[abp]-[\w-]{8,}|AKIA[0-9A-Z]{12,}|AIza[\w-]{20,})"
    r"|(?<=[Bb]earer )[^\s\"']+"
)
_LOGIN = re.compile(r"(?<=://)[^\s/@]+@")
_HOST = re.compile(r"(?<=://)(\[[0-9a-fA-F:]+\]|[^\s/:?#\"'<>@]+)")
_INSIDE = (".local", ".lan", ".internal", ".intranet", ".home", ".corp", ".localdomain")
_MACHINE = "a-machine"


class Scrubber:
    """Removes paths, hosts and keys from values of JSON.

    Args:
        root: The folder below which paths stay, relative to it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        # In texts of models only what is known to be a path is taken for one; the longest first.
        self._known = {str(self.root): ".", str(Path.home()): "~", tempfile.gettempdir(): "tmp"}
        self._node = platform.node()

    def learn(self, value: Any) -> None:
        """Remember every path in the facts of `value`, to find it in free text and in messages too."""
        for text in _strings(value):
            if _WHOLE_PATH.match(text) and len(text) > 3:
                self._known[text] = self._short(text)

    def value(self, value: Any, *, free: bool = False) -> Any:
        """The same JSON value without what is private; under keys of free text only known paths are replaced."""
        if isinstance(value, dict):
            return {
                self.text(key, free=free): REMOVED
                if isinstance(entry, str) and entry and _SECRET_NAME.search(key)
                else self.value(entry, free=free or _is_free(key, entry))
                for key, entry in value.items()
            }
        if isinstance(value, (list, tuple)):
            return self._list(value, free=free)
        return self.text(value, free=free) if isinstance(value, str) else value

    def text(self, text: str, *, free: bool = False) -> str:
        """The same string without what is private."""
        text = _LOGIN.sub("", _SECRETS.sub(REMOVED, text))
        if not free and _WHOLE_PATH.match(text):
            return self._short(text)
        for known in sorted(self._known, key=len, reverse=True):
            if len(known) > 1 and known in text and known != text:
                text = re.sub(rf"(?<![\w/.-]){re.escape(known)}(?![\w.-])", self._replacement(known), text)
        if free:
            return text
        text = _PATH_IN_TEXT.sub(lambda found: self._short(found[0]), text.replace("file:///", "/"))
        text = _HOST.sub(lambda found: _MACHINE if self._is_private(found[0]) else found[0], text)
        if len(self._node) > 3:
            text = re.sub(rf"(?<![\w-]){re.escape(self._node)}(?![\w-])", _MACHINE, text)
        return text

    def command(self, arguments: list[str]) -> list[str]:
        """A command line as it is typed: no key after its option, no path but below the root."""
        return ["stilnovo", *self._list(arguments[1:], free=False)] if arguments else []

    def _list(self, values: Any, *, free: bool) -> list[Any]:
        cleaned: list[Any] = []
        for before, entry in zip([None, *values], values, strict=False):
            option = before if isinstance(before, str) and before.startswith("-") else ""
            name, sign, _ = entry.partition("=") if isinstance(entry, str) else ("", "", "")
            if isinstance(entry, str) and _SECRET_NAME.search(option):
                cleaned.append(REMOVED)
            elif sign and _SECRET_NAME.search(name):
                cleaned.append(f"{name}={REMOVED}")
            elif sign and not free and _WHOLE_PATH.match(entry[len(name) + 1 :]):
                cleaned.append(f"{self.text(name)}={self._short(entry[len(name) + 1 :])}")
            else:
                cleaned.append(self.value(entry, free=free))
        return cleaned

    def _replacement(self, known: str) -> str:
        return self._known[known].replace("\\", "/")

    def _short(self, path: str) -> str:
        """A path below the root relative to it, of any other the last part."""
        plain = path.replace("\\", "/") if re.match(r"[A-Za-z]:\\|\\\\", path) else path
        parts = [part for part in plain.split("/") if part not in ("", ".")]
        if plain.startswith("/") and ".." not in parts and Path(plain).is_relative_to(self.root):
            return Path(plain).relative_to(self.root).as_posix()
        return parts[-1] if parts and not parts[-1].startswith("~") else "."

    def _is_private(self, host: str) -> bool:
        """Whether a host belongs to somebody's own network; this machine's own name for itself is everybody's."""
        bare = host.strip("[]").lower()
        if bare in ("localhost", "127.0.0.1", "::1"):
            return False
        try:
            return ipaddress.ip_address(bare).is_private
        except ValueError:
            return "." not in bare or bare.endswith(_INSIDE) or bare == self._node.lower()


def _is_free(key: str, entry: Any) -> bool:
    """Whether what stands under a key is free text; `text` is also the settings' list of files and a score's object."""
    return key in FREE_TEXT and (key != "text" or isinstance(entry, str))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, entry in value.items():
            if not _is_free(key, entry):
                yield from _strings(entry)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _strings(entry)
    elif isinstance(value, str):
        yield value
