"""The card's benchmark without a card: whatever a part does, its rows stand and the next runs; all stages run on a tiny shape."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import ROOT, TINY
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.load import build
from stilnovo.model.weights import SafetensorsReader

BENCH = ROOT / "bench"
#: Parts that do what parts of a benchmark should not.
DOUBLES = """
import json, os, signal, sys, time

def fine(job):
    for value in job.get("values", [1]):
        yield {"value": value}

def hangs(job):
    yield {"value": "before"}
    time.sleep(60)

def dies(job):
    yield {"value": "before"}
    os.kill(os.getpid(), job["signal"])

def leaves(job):
    yield {"value": "before"}
    print("ValueError: the reason", file=sys.stderr, flush=True)
    os._exit(7)

def raises(job):
    yield {"value": "before"}
    raise ValueError("the reason\\nand where to read on")

def full(job):
    yield {"value": "before"}
    raise MemoryError("out of memory: 3 GiB wanted")

def half(job):
    yield {"value": "before"}
    with open("rows.jsonl", "a") as file:  # what a process that is killed while it writes leaves
        file.write('{"row": {"value": "ha')
    os.kill(os.getpid(), signal.SIGKILL)

def infinite(job):
    yield {"value": float("nan"), "others": [1.0, float("inf")]}

def breeds(job):
    import subprocess
    child = subprocess.Popen(["sleep", "60"])
    yield {"child": child.pid}
    time.sleep(60)

def process(job):
    yield {"pid": os.getpid()}
"""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`gpu_runner`, its children finding the doubles."""
    (tmp_path / "doubles.py").write_text(DOUBLES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(BENCH))
    import gpu_runner

    return gpu_runner


def ran(
    bench: Any, folder: Path, *parts: Any, seconds: float = 60, ahead: bool = False
) -> tuple[list[dict[str, Any]], list[str]]:
    """Run parts in one group; the rows of the file, and each end as `part: outcome`."""
    journal = bench.Journal(folder / "out.jsonl", time.monotonic())
    work = folder / f"work-{time.monotonic_ns()}"
    work.mkdir()
    runner = bench.Runner(journal, time.monotonic() + seconds, work, lambda row: None, ahead=ahead)
    try:
        runner.run(parts)
    finally:
        runner.stop()
    journal.close()
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    return rows, [f"{row['part']}: {row['outcome']}" for row in rows if row.get("ended")]


def part(bench: Any, name: str, *, limit: float = 30, seconds: float = 0.1, call: str = "", **job: Any) -> Any:
    return bench.Part("stage", name, f"doubles:{call or name}", job, seconds, limit)


@pytest.mark.parametrize(
    ("bad", "job", "outcome", "note"),
    [
        ("hangs", {}, "killed", "killed after 1 s in doubles.py:10 hangs"),
        ("dies", {"signal": signal.SIGSEGV}, "crashed", "SIGSEGV: Fatal Python error: Segmentation fault"),
        ("dies", {"signal": signal.SIGKILL}, "crashed", "SIGKILL: "),
        ("leaves", {}, "crashed", "exit 7: ValueError: the reason"),
        ("raises", {}, "failed", "ValueError: the reason (doubles.py:"),
        ("full", {}, "out of memory", "MemoryError: out of memory: 3 GiB wanted"),
        ("half", {}, "crashed", "SIGKILL: "),
        ("missing", {}, "failed", "AttributeError"),
    ],
)
def test_what_goes_wrong_leaves_its_rows_and_the_next_part_runs(
    bench: Any, tmp_path: Path, bad: str, job: dict[str, Any], outcome: str, note: str
) -> None:
    limit = 1 if bad == "hangs" else 30
    parts = [part(bench, "first", call="fine"), part(bench, bad, limit=limit, **job), part(bench, "last", call="fine")]
    rows, ends = ran(bench, tmp_path, *parts)
    assert ends == ["first: ok", f"{bad}: {outcome}", "last: ok"]
    end = next(row for row in rows if row.get("ended") and row["part"] == bad)
    assert end["note"].startswith(note), end
    assert [row["value"] for row in rows if row["part"] == bad and not row.get("ended")] == ["before"] * (
        bad != "missing"
    )


def test_what_hangs_is_killed_with_all_that_it_started(bench: Any, tmp_path: Path) -> None:
    rows, ends = ran(bench, tmp_path, part(bench, "breeds", limit=1))
    assert ends == ["breeds: killed"]
    state = Path(f"/proc/{rows[0]['child']}/stat")
    if Path("/proc").is_dir():
        deadline = time.monotonic() + 10
        while state.exists() and state.read_text().split(")")[1].split()[0] != "Z" and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not state.exists() or state.read_text().split(")")[1].split()[0] == "Z"


def test_parts_share_a_process_until_one_fails(bench: Any, tmp_path: Path) -> None:
    names = ["a", "b", "raises", "c", "d"]
    rows, _ = ran(
        bench, tmp_path, *[part(bench, name, call="" if name == "raises" else "process") for name in names], ahead=True
    )
    pids = {row["part"]: row["pid"] for row in rows if "pid" in row}
    assert pids["a"] == pids["b"] != pids["c"] == pids["d"]


def test_the_budget_is_kept_and_what_does_not_fit_is_named(bench: Any, tmp_path: Path) -> None:
    started = time.monotonic()
    parts = [
        part(bench, "long", seconds=1000, call="fine"), part(bench, "short", call="fine"), part(bench, "hangs"),
        part(bench, "never", call="fine", seconds=1),
    ]  # fmt: skip
    rows, ends = ran(bench, tmp_path, *parts, seconds=3)
    assert ends == ["long: left out", "short: ok", "hangs: killed", "never: left out"]
    assert [row["note"] for row in rows if row["outcome"] == "left out"] == ["no time"] * 2
    assert "the time was over" in next(row["note"] for row in rows if row["outcome"] == "killed")
    assert time.monotonic() - started < 30  # not the minute of what hangs


def test_rows_are_strict_json_whatever_was_measured(bench: Any, tmp_path: Path) -> None:
    rows, _ = ran(bench, tmp_path, part(bench, "infinite"))
    assert rows[0]["value"] is None
    assert rows[0]["others"] == [1.0, None]


def test_a_python_that_is_not_there_fails_its_part_alone(bench: Any, tmp_path: Path) -> None:
    gone = replace(part(bench, "gone", call="fine"), python=str(tmp_path / "no-python"))
    _, ends = ran(bench, tmp_path, part(bench, "first", call="fine"), gone, part(bench, "last", call="fine"))
    assert ends == ["first: ok", "gone: failed", "last: ok"]


def test_a_file_is_gone_on_with(bench: Any, tmp_path: Path) -> None:
    parts = [part(bench, "first", call="fine", values=[1, 2]), part(bench, "raises"), part(bench, "last", call="fine")]
    ran(bench, tmp_path, *parts)
    with (tmp_path / "out.jsonl").open("a") as file:  # cut off by a power cut
        file.write('{"stage": "stage", "part": "torn", "outco')
    parts[1] = replace(parts[1], call="doubles:fine")
    journal = bench.Journal(tmp_path / "out.jsonl", time.monotonic())
    runner = bench.Runner(journal, time.monotonic() + 60, tmp_path, lambda row: None)
    before = len(journal.rows)
    runner.run(parts)
    runner.stop()
    journal.close()
    fresh = journal.rows[before:]
    assert [(row["part"], row["attempt"], row["outcome"]) for row in fresh] == [("raises", 2, "ok")] * 2
    assert bench.whole_rows(tmp_path / "out.jsonl")[-1] == fresh[-1]
    import gpu_table

    assert gpu_table.counts(journal.rows) == {"stage": {"ok": 3}}


def command(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH / "gpu.py"), *arguments],
        capture_output=True,
        text=True,
        cwd=more.pop("cwd", ROOT),
        **more,
    )


def test_the_plan_of_stages_is_json() -> None:
    done = command("--plan", "--minutes", "5", "--stages", "a,d,peers")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [stage["stage"] for stage in found["stages"]] == ["starts", "speeds", "peers"]
    assert found["minutes"] == 5
    assert all(stage["limit_seconds"] <= 300 for stage in found["stages"])
    assert [part["part"] for part in found["stages"][1]["parts"]][:2] == [
        "2,048 tokens, 7.5 GiB",
        "2,048 tokens, no cap",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--stages", "a,z"), "there is no stage z"), (("--minutes", "0"), "--minutes must be above 0"),
        (("--host-memory", "much"), "write 128GB"), (("--resume",), "needs the file that --out names"),
        (("--out", "README.md"), "go on in it with --resume"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_at_once(arguments: Sequence[str], words: str) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert words in done.stderr


def test_a_file_of_another_machine_is_not_gone_on_with(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text(json.dumps({"stage": "run", "part": "begin", "device": "cuda"}) + "\n")
    before = out.read_bytes()
    done = command("--tiny-cpu", "--resume", "--out", str(out))
    assert done.returncode == 2
    assert "is of a card" in done.stderr
    assert out.read_bytes() == before


def test_without_a_card_it_says_so(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    out = tmp_path / "out.jsonl"
    done = command("--out", str(out))
    assert done.returncode == 2
    assert "needs a CUDA card" in done.stderr
    assert not out.exists()


#: What a machine for a benchmark may lack: everything of the core but torch, numpy, bitsandbytes, safetensors and pydantic.
ABSENT = """
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, fullname, path, target=None):
        names = "typer rich click gguf rensa mwparserfromhell Stemmer tantivy jinja2 httpx transformers peft trl".split()
        if fullname.partition(".")[0] in names:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)

sys.meta_path.insert(0, Absent())
"""


def test_it_needs_no_installation(tmp_path: Path) -> None:
    """From another folder, with a relative path in PYTHONPATH, and without the command line's packages."""
    (tmp_path / "sitecustomize.py").write_text(ABSENT)
    settings = {**os.environ, "PYTHONPATH": os.path.relpath(tmp_path, tmp_path.parent), "STILNOVO_CACHE": str(tmp_path)}
    out = tmp_path / "out.jsonl"
    done = command(
        "--tiny-cpu", "--stages", "memory", "--tokens", "64", "--steps", "1", "--out", str(out), env=settings,
        cwd=tmp_path.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    *shown, last = done.stdout.splitlines()
    found = json.loads(last)
    assert set(found["counts"]) == {"machine", "memory"}, found
    assert found["failures"] == found["left_out"] == [], found
    assert len(shown) <= 23 and max(map(len, shown)) < 80
    assert [json.loads(line) for line in out.read_text().splitlines()][-1] == found


def test_what_waits_for_its_turn_holds_nothing_of_the_card() -> None:
    """The next child imports while another measures: a CUDA context of its own would be missing there."""
    code = "import sys, gpu_step, torch; print('bitsandbytes' in sys.modules, torch.cuda.is_initialized())"
    settings = {**os.environ, "PYTHONPATH": os.pathsep.join([str(BENCH), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=settings)
    assert done.stdout == "False False\n", done.stderr


def test_an_interrupted_run_ends_with_its_table_and_a_valid_file(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    process = subprocess.Popen(
        [sys.executable, str(BENCH / "gpu.py"), "--tiny-cpu", "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while (not out.exists() or '"machine"' not in out.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    shown = process.communicate(timeout=60)[0].decode().splitlines()
    assert process.returncode == 130
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows[-1]["interrupted"]
    assert json.loads(shown[-1]) == rows[-1]


def made_rows(bench: Any) -> list[dict[str, Any]]:
    """A whole run's rows, the longest that there can be."""
    cap, rows = int(7.5 * 2**30), [{"stage": "run", "part": "begin", "device": "cuda", "minutes": 9.0, "at": 0}]
    rows += [
        {
            "stage": "machine",
            "part": "machine",
            "hardware": {"gpu": "NVIDIA GeForce RTX 4060 Laptop GPU"},
            "outcome": "ok",
        }
    ]
    rows += [
        {
            "stage": stage,
            "part": f"{stage} {i}",
            "ended": True,
            "outcome": outcome,
            "note": "a long reason " * 9,
            "at": 1,
        }
        for stage in ("starts", "parity", "decoding", "peers")
        for i, outcome in enumerate(["ok", "failed", "killed", "left out", "crashed", "out of memory"])
    ]
    rows += [{"stage": "parity", "part": "parity 0", "outcome": "ok", "gradient": 0.02, "loss": 0.0}]
    rows += [
        {"stage": "speeds", "part": f"{tokens} {limit}", "tokens": tokens, "cap_bytes": limit, "kernels": on,
         "outcome": "ok", "recompute": False,
         "tokens_per_second": 17192.3 + on}
        for tokens in (2048, 4096, 8192) for limit in (cap, None) for on in (False, True)
    ]  # fmt: skip
    rows += [
        {"stage": stage, "part": f"{tokens}", "tokens": tokens, "cap_bytes": cap, "predicted_bytes": cap, "outcome": "ok",
         "allocated_bytes": cap, "reserved_bytes": cap, "tokens_per_second": 600.0, "step_seconds": [1.0]}
        for stage, tokens in (("memory", 2048), ("memory", 8192), ("long", 65536))
    ]  # fmt: skip
    rows += [
        {"stage": "peers", "part": f"{peer}{tokens}{limit}", "peer": peer, "tokens": tokens, "cap_bytes": limit, "outcome": "ok",
         "tokens_per_second": 12000.0}
        for peer in ("trl", "unsloth", "unsloth, offload_layers") for tokens in (2048, 8192) for limit in (cap, None)
    ]  # fmt: skip
    return rows


def test_the_table_fits_a_screen(bench: Any) -> None:
    import gpu_table

    rows = made_rows(bench)
    lines = gpu_table.table(rows)
    assert len(lines) <= gpu_table.LINES
    assert max(map(len, lines)) < 80
    assert any("no cap: kernels 17,192 off, 17,193 on (1.00 ×) tok/s" in line for line in lines)
    assert lines[-1].startswith("… and") and "more in the file" in lines[-1]
    assert len(gpu_table.table(rows[:1])) == 1


def test_rows_are_kept_whatever_becomes_of_their_summary(
    tmp_path: Path, bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu
    import gpu_table

    out, shown = tmp_path / "out.jsonl", list[str]()
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--tiny-cpu", "--out", str(out)])
    monkeypatch.setattr(gpu, "run", lambda *_: iter(()))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(gpu_table, "figures", lambda rows: 1 / 0)
    monkeypatch.setattr("builtins.print", lambda text, **_: shown.append(text))
    with pytest.raises(SystemExit) as end:
        gpu.main()
    assert end.value.code == 0
    assert "ZeroDivisionError" in json.loads(shown[-1])["summary_failed"]
    assert bench.whole_rows(out)[-1] == json.loads(shown[-1])


def test_what_was_measured_is_summed_up_by_its_last_attempt(bench: Any) -> None:
    import gpu_table

    common = {
        "stage": "speeds",
        "part": "p",
        "tokens": 2048,
        "cap_bytes": None,
        "kernels": True,
        "recompute": False,
        "outcome": "ok",
    }
    rows = [
        {**common, "tokens_per_second": 1.0}, {**common, "ended": True, "outcome": "killed", "note": "hung"},
        {**common, "attempt": 2, "tokens_per_second": 3.0}, {**common, "attempt": 2, "tokens_per_second": 5.0},
        {**common, "attempt": 2, "ended": True},
    ]  # fmt: skip
    assert gpu_table.figures(rows)["speeds"] == [
        {"tokens": 2048, "cap_bytes": None, "tokens_per_second_kernels_on": 4.0, "n": 2}
    ]
    assert gpu_table.failures(rows) == []
    assert gpu_table.failures(rows[:2]) == ["speeds: p: killed: hung"]


@pytest.mark.parametrize("fused", [False, True], ids=["any processor", "avx512_bf16"])
def test_synthetic_weights_are_those_transformers_computes_with(
    fused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a processor has avx512_bf16, `Linear4bit` in eval mode repacks its weights and computes in bf16: not so in train mode.

    Rows are whole blocks, as bitsandbytes' own layer needs on processors with AVX-512.
    """
    import bitsandbytes.nn.modules
    from transformers import AutoModelForCausalLM

    monkeypatch.syspath_prepend(str(BENCH))
    import synthetic

    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: fused)
    synthetic.write(tmp_path, replace(TINY, intermediate_size=128), torch.float32)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, device_map={"": "cpu"}, dtype=torch.float32).train()
    assert type(theirs.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
    ours = build(SafetensorsReader(tmp_path), "nf4", torch.device("cpu"), torch.float32)
    tokens = torch.arange(30) % 97
    with torch.no_grad():
        expected = theirs(tokens[None], use_cache=False).logits[0]
        found = ours(tokens, positions_of([30]), Blocks([30]))
    assert expected.std() > 0
    # Ours reads the dense values and packs them again; the scales are quantised once more.
    torch.testing.assert_close(found, expected, atol=0.05 * float(expected.std()), rtol=0)


@pytest.mark.slow
def test_every_stage_runs_on_a_tiny_shape(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    done = command(
        "--tiny-cpu",
        "--minutes",
        "20",
        "--tokens",
        "128",
        "--longest",
        "256",
        "--steps",
        "1",
        "--rounds",
        "1",
        "--out",
        str(out),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads(done.stdout.splitlines()[-1])
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert record == rows[-1]
    assert record["failures"] == record["left_out"] == []
    assert list(record["counts"]) == ["machine", "starts", "parity", "memory", "speeds", "long", "decoding", "peers"]
    assert record["counts"]["parity"]["ok"] == 12  # kernels are for cards
    figures = record["figures"]
    assert [row["cap_bytes"] is None for row in figures["speeds"]] == [False, True]
    assert all(row["tokens_per_second_kernels_off"] > 10 for row in figures["speeds"])
    assert figures["speeds"][1]["all_recomputed_tokens_per_second"] > 10
    assert {row["peer"] for row in figures["peers"]} == {"trl"}
    assert figures["long"][0]["tokens"] == 256
    assert figures["memory"][0]["predicted_bytes"] > 0
    assert {row["device"] for row in rows if row["stage"] == "run"} == {"cpu"}
