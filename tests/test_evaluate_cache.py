"""The answer cache: nothing of another model, nothing lost by a kill, never a reason to fail."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stilnovo.benchmarks.task import MultipleChoice, item_sha256
from stilnovo.errors import InputError
from stilnovo.hub import ModelFiles
from stilnovo.runlog import cache_folder
from stilnovo.scoring import answer_cache as module
from stilnovo.scoring import identity as identities
from stilnovo.scoring.answer_cache import FILE_NAME, AnswerCache
from stilnovo.scoring.identity import Identity, adapter_sha256, code_sha256, model_sha256

ONE = Identity("weights", None, "none", "float32", "cpu", {"bos": True}, "code")
ROWS = [(f"item-{number}", {"loglikelihoods": [-1.5, -2.25], "choice": number % 2}) for number in range(5)]


class Cache(AnswerCache):
    """With the warnings at hand."""

    def __init__(self, folder: Path | None) -> None:
        self.warnings: list[str] = []
        super().__init__(folder, self.warnings.append)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path) as opened:
        yield opened


def found(cache: AnswerCache, identity: Identity = ONE, task: str = "arc", version: str = "1") -> list[Any]:
    return list(cache.find(identity, task, version, [item for item, _ in ROWS]))


def test_what_was_kept_is_found_again(tmp_path: Path) -> None:
    with Cache(tmp_path / "deep" / "down") as first:
        assert found(first) == [None] * 5
        first.keep(ONE, "arc", "1", ROWS[:3])
        assert found(first) == [*(answer for _, answer in ROWS[:3]), None, None]
    with Cache(tmp_path / "deep" / "down") as second:
        assert found(second)[:3] == [answer for _, answer in ROWS[:3]]
        assert second.warnings == []


@pytest.mark.parametrize(
    "other",
    [
        replace(ONE, weights_sha256="others"),
        replace(ONE, adapter_sha256="adapter"),
        replace(ONE, quantization="nf4"),
        replace(ONE, dtype="bfloat16"),
        replace(ONE, device="cuda"),
        replace(ONE, protocol={"bos": False}),
        replace(ONE, code_sha256="newer"),
    ],
)
def test_every_part_of_the_identity_counts(cache: Cache, other: Identity) -> None:
    cache.keep(ONE, "arc", "1", ROWS)
    assert found(cache, other) == [None] * 5
    cache.keep(other, "arc", "1", [(ROWS[0][0], {"choice": 7})])
    assert found(cache, other)[0] == {"choice": 7}
    assert found(cache)[0] == ROWS[0][1]


def test_task_version_and_item_count(cache: Cache) -> None:
    cache.keep(ONE, "arc", "1", ROWS)
    assert found(cache, task="other") == found(cache, version="2") == [None] * 5
    item = MultipleChoice("a", "Domanda:", (" sì", " no"), 0)
    assert item_sha256(item) == item_sha256(replace(item, cluster="passage"))
    changed = [
        replace(item, id="b"),
        replace(item, context="x"),
        replace(item, endings=(" sì", " No")),
        replace(item, answer=1),
    ]
    assert len({item_sha256(i) for i in [item, *changed]}) == 5


def write_adapter(folder: Path, content: bytes, rank: int = 8) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(f'{{"r": {rank}}}', encoding="utf-8")
    (folder / "adapter_model.safetensors").write_bytes(content)


def test_an_adapter_is_its_content(tmp_path: Path) -> None:
    """Same path, size and time but other content: another adapter. Same content elsewhere: the same."""
    write_adapter(tmp_path / "a", b"first")
    first, stamp = adapter_sha256(tmp_path / "a"), (tmp_path / "a" / "adapter_model.safetensors").stat()
    write_adapter(tmp_path / "a", b"other")
    os.utime(tmp_path / "a" / "adapter_model.safetensors", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert adapter_sha256(tmp_path / "a") != first
    write_adapter(tmp_path / "b", b"first")
    assert adapter_sha256(tmp_path / "b") == first
    write_adapter(tmp_path / "b", b"first", rank=16)
    assert adapter_sha256(tmp_path / "b") != first
    with pytest.raises(InputError, match="no adapter in"):
        adapter_sha256(tmp_path / "c")


def test_a_model_is_its_content(tmp_path: Path) -> None:
    def model(folder: str, weights: bytes, tokenizer: str = "{}") -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "config.json").write_text("{}", encoding="utf-8")
        (tmp_path / folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
        (tmp_path / folder / "model.safetensors").write_bytes(weights)
        return model_sha256(ModelFiles(folder, "folder", tmp_path / folder))

    assert model("a", b"w") == model("b", b"w")
    assert model("a", b"w") != model("b", b"v")
    assert model("a", b"w") != model("b", b"w", '{"a": 1}')


def test_a_weight_file_is_read_once_and_again_when_it_changed(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file, read = tmp_path / "model.gguf", []
    honest = module.sha256_file

    def counted(path: Path) -> str:
        read.append(path)
        return honest(path)

    monkeypatch.setattr(module, "sha256_file", counted)
    file.write_bytes(b"first")
    first, stamp = cache.file_sha256(file), file.stat()
    assert cache.file_sha256(file) == first
    assert len(read) == 1
    file.write_bytes(b"other")
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert cache.file_sha256(file) != first, "the time of the inode's change cannot be set back"
    with Cache(None) as none:
        assert none.file_sha256(file) == cache.file_sha256(file)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of the package's own sources."""
    package = Path(identities.__file__).parents[1]
    return Path(
        shutil.copytree(
            package, tmp_path / "stilnovo", ignore=lambda _, names: {"static", "sample", "__pycache__"} & {*names}
        )
    )


def append(file: Path) -> None:
    assert file.is_file()
    file.write_text(f"{file.read_text(encoding='utf-8')}\nCHANGED = True\n", encoding="utf-8")


def test_a_new_benchmark_the_guard_or_a_page_leaves_cached_answers_valid(sources: Path, cache: Cache) -> None:
    before = replace(ONE, code_sha256=code_sha256(sources))
    assert before.code_sha256 == code_sha256()
    cache.keep(before, "arc", "1", ROWS)
    (sources / "benchmarks/tasks/quiz.py").write_text("TASK = None\n", encoding="utf-8")
    for file in (
        "benchmarks/tasks/__init__.py",
        "benchmarks/tasks/squad_it.py",
        "forgetting/guard.py",
        "report/page.py",
        "cli/evaluate.py",
    ):
        append(sources / file)
    code_sha256.cache_clear()
    after = replace(ONE, code_sha256=code_sha256(sources))
    assert after == before
    assert found(cache, after) == [answer for _, answer in ROWS]


@pytest.mark.parametrize(
    "file", ["scoring/encode.py", "model/llama.py", "generate/sampling.py", "text/tokenizer.py", "plan/shape.py"]
)
def test_another_scorer_is_asked_again(sources: Path, cache: Cache, file: str) -> None:
    before = replace(ONE, code_sha256=code_sha256(sources))
    cache.keep(before, "arc", "1", ROWS)
    append(sources / file)
    code_sha256.cache_clear()
    after = replace(ONE, code_sha256=code_sha256(sources))
    assert after != before
    assert found(cache, after) == [None] * 5
    (sources / "scoring/faster.py").write_text("a = 1\n", encoding="utf-8")
    code_sha256.cache_clear()
    assert code_sha256(sources) != after.code_sha256, "a file more counts too"


def test_a_killed_process_loses_nothing_it_had_finished(tmp_path: Path) -> None:
    script = f"""
    import os, signal
    from pathlib import Path
    from stilnovo.scoring.answer_cache import AnswerCache
    from stilnovo.scoring.identity import Identity
    cache = AnswerCache(Path({str(tmp_path)!r}), print)
    one = Identity("weights", None, "none", "float32", "cpu", {{"bos": True}}, "code")
    cache.keep(one, "arc", "1", [("item-0", {{"choice": 1}})])
    cache.keep(one, "arc", "1", [("item-1", {{"choice": 2}})])
    cache._connection.execute("BEGIN IMMEDIATE")
    cache._connection.execute("UPDATE answers SET answer = 'half-done'")
    os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert ended.returncode == -signal.SIGKILL
    with Cache(tmp_path) as cache:
        assert found(cache)[:3] == [{"choice": 1}, {"choice": 2}, None]
        cache.keep(ONE, "arc", "1", ROWS)
        assert found(cache) == [answer for _, answer in ROWS]
        assert cache.warnings == []


def test_two_evaluations_at_once(tmp_path: Path) -> None:
    script = f"""
    import sys
    from pathlib import Path
    from stilnovo.scoring.answer_cache import AnswerCache
    from stilnovo.scoring.identity import Identity
    who, warnings = sys.argv[1], []
    one = Identity(who, None, "none", "float32", "cpu")
    with AnswerCache(Path({str(tmp_path)!r}), warnings.append) as cache:
        for number in range(300):
            cache.keep(one, "arc", "1", [(str(number), {{"who": who}})])
        kept = list(cache.find(one, "arc", "1", map(str, range(300))))
    assert kept == [{{"who": who}}] * 300 and not warnings, warnings
    """
    both = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(script), who]) for who in "ab"]
    assert [process.wait() for process in both] == [0, 0]


def test_a_locked_file_lets_answers_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BUSY_SECONDS", 0.05)
    with Cache(tmp_path) as cache:
        cache.keep(ONE, "arc", "1", ROWS[:1])
        other = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        cache.keep(ONE, "arc", "1", ROWS[1:2])
        cache.keep(ONE, "arc", "1", ROWS[2:3])
        assert len(cache.warnings) == 1 and "locked by another process" in cache.warnings[0]
        assert found(cache)[:2] == [ROWS[0][1], None], "reading goes on"
        other.execute("ROLLBACK")
        other.close()
    with Cache(tmp_path) as cache:
        assert found(cache)[:3] == [answer for _, answer in ROWS[:3]], "they were written when it was free again"


def test_a_file_held_exclusively_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BUSY_SECONDS", 0.05)
    Cache(tmp_path).close()
    other = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with Cache(tmp_path) as cache:
        assert not cache.usable
        assert "goes on without it" in cache.warnings[0]
        cache.keep(ONE, "arc", "1", ROWS)
        assert found(cache) == [None] * 5
    other.close()


@pytest.mark.parametrize("content", [b"this is no database at all, " * 40, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_damaged_file_is_done_without_and_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with Cache(tmp_path) as cache:
        assert found(cache) == [None] * 5
        cache.keep(ONE, "arc", "1", ROWS)
        assert found(cache) == [None] * 5
    assert len(cache.warnings) == 1
    assert "cannot be used" in cache.warnings[0] and str(tmp_path) in cache.warnings[0]
    assert (tmp_path / FILE_NAME).read_bytes() == content


def test_a_file_damaged_in_the_middle(tmp_path: Path) -> None:
    with Cache(tmp_path) as cache:
        cache.keep(ONE, "arc", "1", [(f"item-{number}", {"text": "x" * 400}) for number in range(400)])
    content = bytearray((tmp_path / FILE_NAME).read_bytes())
    for place in range(4096 * 5, len(content) - 4096, 4096):
        content[place : place + 64] = os.urandom(64)
    (tmp_path / FILE_NAME).write_bytes(bytes(content))
    with Cache(tmp_path) as cache:
        kept = list(cache.find(ONE, "arc", "1", [f"item-{number}" for number in range(400)]))
        assert all(answer in (None, {"text": "x" * 400}) for answer in kept), "what is served is whole"


@pytest.mark.parametrize(
    "change",
    ["answer = '{\"choice\": 9}'", "answer = '{'", "item = 'item-4'", "checksum = 0", "task = 'other'"],
)
def test_a_row_that_was_tampered_with_is_not_served(tmp_path: Path, change: str) -> None:
    with Cache(tmp_path) as cache:
        cache.keep(ONE, "arc", "1", ROWS[:1])
    with sqlite3.connect(tmp_path / FILE_NAME) as other:
        other.execute(f"UPDATE answers SET {change}")
    other.close()
    with Cache(tmp_path) as cache:
        assert found(cache) == [None] * 5
        assert found(cache, task="other") == [None] * 5


def test_a_read_only_file_is_read_and_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Cache(tmp_path) as cache:
        cache.keep(ONE, "arc", "1", ROWS[:2])
    honest = sqlite3.connect

    def read_only(path: Any, **options: Any) -> sqlite3.Connection:
        uri = path if options.pop("uri", False) else f"{Path(path).as_uri()}?mode=ro"
        return honest(uri, uri=True, **options)

    monkeypatch.setattr(module.sqlite3, "connect", read_only)
    with Cache(tmp_path) as cache:
        assert found(cache)[:2] == [answer for _, answer in ROWS[:2]]
        cache.keep(ONE, "arc", "1", ROWS)
        cache.keep(ONE, "arc", "1", ROWS)
        assert found(cache)[2:] == [None] * 3
        assert len(cache.warnings) == 1 and "no longer kept" in cache.warnings[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    with Cache(tmp_path / "a") as cache:
        cache.keep(ONE, "arc", "1", ROWS[:2])
    for path in (*(tmp_path / "a").iterdir(), tmp_path / "a"):
        path.chmod(0o500 if path.is_dir() else 0o400)
    with Cache(tmp_path / "a") as cache:
        assert found(cache)[:2] == [answer for _, answer in ROWS[:2]]
        cache.keep(ONE, "arc", "1", ROWS)
        assert len(cache.warnings) == 1
    (tmp_path / "a").chmod(0o700)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with Cache(tmp_path / "file" / "cache") as cache:
        assert found(cache) == [None] * 5
        assert not cache.usable
        assert len(cache.warnings) == 1


def test_a_full_disk_is_said_once(cache: Cache) -> None:
    cache.keep(ONE, "arc", "1", ROWS[:1])
    assert cache._connection is not None
    pages = cache._connection.execute("PRAGMA page_count").fetchone()[0]
    cache._connection.execute(f"PRAGMA max_page_count = {pages}")
    for number in range(3):
        cache.keep(ONE, "arc", "1", [(f"big-{number}", {"text": "x" * 10**5})])
    assert len(cache.warnings) == 1 and "full" in cache.warnings[0]
    assert found(cache)[0] == ROWS[0][1]


def test_speeds(cache: Cache) -> None:
    assert cache.speed("smollm2 none cpu", "arc") is None
    cache.keep_speed("smollm2 none cpu", "arc", 2.5)
    cache.keep_speed("smollm2 none cpu", "arc", 2.75)
    assert cache.speed("smollm2 none cpu", "arc") == 2.75
    assert cache.speed("smollm2 nf4 cpu", "arc") is None


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STILNOVO_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("STILNOVO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "stilnovo"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "stilnovo"
