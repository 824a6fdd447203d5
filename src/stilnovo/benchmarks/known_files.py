"""Whose rows a benchmark's folder holds: the benchmark's, by the hash of its files, or anybody's who gave them its form.

A folder's name proves nothing: who lays private questions in `arc_it/` would have them measured as ARC, under its source and
licence. Files are therefore hashed; those that are not known here are called by their hash and are the user's rows. A file
that was fetched from the benchmark's own place on the hub is the benchmark's. No hash is known of a benchmark whose files have
not been at hand: its rows are the user's too, until one is. Nor does a file's name prove which split it holds: a benchmark's
training rows under the name of its test file are said to be that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stilnovo.runlog import sha256_file

KNOWN: Mapping[str, tuple[str, str]] = {
    "a73f434c6f80d8d146df56ea38ec7abbda557190f995afba439867e32afad91a": ("arc_it", "test"),
    "2a8223db5b7ac28c06e56b79931aaf8011e56229c4eaf5b2ffc8bf6e1e9b4d9f": ("arc_it", "validation"),
    "56d28eee3a547cb99dc81ed4ce84bc8c93759858a9f3fd67a41321a6f37af4fc": ("arc_it", "train"),
    "9624983cf5e7c9b0a37bbcd8ed8388a828508bd3aa13c8c88071495439bac16b": ("exams_it", "test"),
    "dcf42b56f8bf7098e99dfeb9872336a1edac55bcd793ea08a0cbb7c06fd281f5": ("exams_it", "validation"),
    "7f7cf82cb33e32191748d15f4d10b0df734c004a4018e18dc414fc0441259377": ("exams_it", "train"),
    "f0eb4527e0a64e03db1eeba22a4cdd5806f14b8d8eeb41b2224151de64855ee5": ("gsm8k", "test"),
    "d572539320eb2050e858ca34b495bbe2103e3b3f1391a9c3bcdf215b0bb93bd1": ("hellaswag", "validation"),
    "b2e2b8a878b49b692422a7fb0ee0d4913b56481511a118795077bda0058696a1": ("invalsi", "test"),
    "146afc589393c87011568013f93f8130e021126eae2835522f880dde93398db7": ("invalsi_2008_2010", "test"),
    "55fa335398eb349aa24281f42856c7be7b5984b454c046400ccc8f8ec9c82d7f": ("invalsi_2008_2010", "test"),
    "6666916920c956fd668af739d5b9587415644e0e120216055756f26a0fa1c0a7": ("invalsi_2008_2010", "test"),
    "277cab08549a92a503e8b9ffd611404c8e57932d4ab264d99cbc98d211dafa4d": ("mmlu_it", "train"),
    "a41f3a5627ae3e10461ed7a442f73d378e9dff41bff9a91f8cecd03652f7e66b": ("mmlu_it", "validation"),
    "653e8118d2ae2199c3b1887307a2ef76426c763d19a6f446923ff9bc3d86bd9c": ("squad_it", "test"),
    "db55dc2aa105c7adace2a7f431446b517226a8f620c6a5f57d4027d638b14885": ("truthfulqa_it", "validation"),
    "5a9db0e2ea6fddd05f8e1f71b0dd285f1377b210041d11853fc2fe7f7a06ac77": ("winogrande", "validation"),
}  # sha256 of a file as it is distributed → its dataset's folder, our name of the split that it holds


@dataclass
class FilesRead:
    """Files from which a benchmark's rows were read, in order: path → its dataset's folder and the split that it was read for.

    The folder is empty where the file was fetched.
    """

    folders: dict[Path, tuple[str, str]] = field(default_factory=dict)
    _digests: dict[Path, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def _digest(self, path: Path) -> str:
        """A file's sha256, read once."""
        if path not in self._digests:
            self._digests[path] = sha256_file(path)
        return self._digests[path]

    def provenance(self) -> tuple[dict[str, str], bool]:
        """Hash them: file name → hex sha256, and whether all are known to be the benchmark's, and the splits asked for."""
        known = all(not place[0] or KNOWN.get(self._digest(path)) == place for path, place in self.folders.items())
        return {path.name: self._digest(path) for path in self.folders}, known

    def users_rows(self, source: str) -> str:
        """Describe rows that are in the form of a benchmark and not known to be those that were asked for."""
        listed = []
        for path, (folder, split) in self.folders.items():
            digest = self._digest(path)
            found, held = KNOWN.get(digest, ("", split))
            other = f": its {held} split, not {split}" if folder and found == folder and held != split else ""
            listed.append(f"{path.name} (sha256 {digest[:12]}{other})")
        return f"rows given by the user, {', '.join(listed)}; not known to be those of {source}"
