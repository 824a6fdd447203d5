"""`stilnovo bundle`: the same bytes for the same run, nothing private, every damage named, and runs repeated to the last bit."""

from __future__ import annotations

import json
import platform
import random
import shutil
import string
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from stilnovo.bundle.contents import FACTS, contents_of
from stilnovo.bundle.private import REMOVED, Scrubber
from stilnovo.bundle.repeat import RepeatedNumber
from stilnovo.bundle.zip_file import MANIFEST, OpenedBundle, name_fault, write_bundle
from stilnovo.cli.main import app
from stilnovo.errors import InputError

TEXTS = [f"La lettera numero {n} parlava del faro, della {'pioggia ' * (n % 5 + 1)}e di chi legge." for n in range(24)]
QUIZ = "name: il_faro\nfile: domande.jsonl\nquestion: domanda\nchoices: opzioni\nanswer: risposta\n"
QUESTIONS = [
    {"domanda": f"Che cosa è un faro, detto {n} volte?", "opzioni": ["una torre", "un pesce"], "risposta": "AB"[n % 2]}
    for n in range(9)
]


def call(*arguments: str | Path, code: int = 0) -> dict[str, Any]:
    """Run the command with `--json`; its object, or its words under `output` where it fails."""
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert getattr(done.exception, "exit_code", done.exit_code) == code, (done.output, done.exception)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else {"output": str(done.exception or done.output)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A training, evaluations before and after it with own data and a comparison, as the commands write them."""
    root = tmp_path_factory.mktemp("runs")
    data = root / "data"
    data.mkdir()
    (data / "lettere.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    (data / "quiz.yaml").write_text(QUIZ, encoding="utf-8")
    rows = "".join(json.dumps(row) + "\n" for row in QUESTIONS)
    (data / "domande.jsonl").write_text(rows, encoding="utf-8")
    (data / "altro.txt").write_text("\n".join(TEXTS[:9]), encoding="utf-8")
    model = ("--model", tiny_folder, "--quantization", "none")
    call(
        "train",
        *model,
        "--data",
        data / "lettere.jsonl",
        "--steps",
        "3",
        "--out",
        root / "train",
        "--set",
        "data.pack_tokens=64",
    )
    asked = (
        "--tasks",
        "sample_questions",
        "--task-file",
        data / "quiz.yaml",
        "--text",
        data / "altro.txt",
        "--limit",
        "9",
    )
    call("evaluate", *model, *asked, "--no-cache", "--out", root / "before")
    call("evaluate", *model, *asked, "--no-cache", "--adapter", root / "train" / "adapter", "--out", root / "after")
    call("compare", root / "before", root / "after", "--out", root / "compare")
    return root


def bundled(runs: Path, name: str, folder: Path, *options: str) -> Path:
    path = folder / f"{name}.zip"
    call("bundle", runs / name, "--out", path, *options)
    return path


def test_the_same_run_makes_the_same_bytes_and_overwrites_nothing(runs: Path, tmp_path: Path) -> None:
    first = bundled(runs, "before", tmp_path)
    second = tmp_path / "again.zip"
    call("bundle", "make", runs / "before", "--out", second)
    assert first.read_bytes() == second.read_bytes()
    said = call("bundle", runs / "before", "--out", second, code=2)
    assert "already" in said["output"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.zip", "before.zip"]


@pytest.mark.parametrize("name", ["train", "before", "after", "compare"])
@pytest.mark.parametrize("options", [(), ("--with-data", "--with-adapter")])
def test_no_path_of_the_machine_is_in_any_member(
    runs: Path,
    tiny_folder: Path,
    name: str,
    options: tuple[str, ...],
    tmp_path: Path,
) -> None:
    private = {str(runs), str(tiny_folder), str(Path.home()), str(tmp_path), "/tmp/", "pytest-of"}
    with zipfile.ZipFile(bundled(runs, name, tmp_path, *options)) as archive:
        for member in archive.namelist():
            if not member.startswith("data/"):
                text = archive.read(member).decode("utf-8")
                assert not [word for word in private if word != "/" and word in text], member


def test_what_it_holds_and_what_it_leaves_out(runs: Path, tmp_path: Path) -> None:
    lean, full = bundled(runs, "train", tmp_path), tmp_path / "full.zip"
    call("bundle", "--with-data", "--with-adapter", runs / "train", "--out", full)
    names = set(zipfile.ZipFile(lean).namelist())
    assert {"README.md", FACTS, MANIFEST, "run/recipe.yaml", "run/metrics.jsonl", "run/manifest.json"} <= names
    assert not [name for name in names if name.endswith((".safetensors", ".pt")) or name.startswith("data/")]
    facts = json.loads(zipfile.ZipFile(lean).read(FACTS))
    (file,) = next(entry for entry in facts["data"] if entry["use"] == "training data")["files"]
    assert (file["name"], file["bytes"]) == ("lettere.jsonl", (runs / "data" / "lettere.jsonl").stat().st_size)
    assert facts["code"]["source_sha256"]
    assert facts["computing"]["threads"] >= 1
    assert facts["model"]["weights_sha256"]
    assert facts["seeds"] == {"train.seed": 42}
    assert f"data/{file['sha256']}" in zipfile.ZipFile(full).namelist()


def test_a_training_is_repeated_to_the_last_bit_wholly_and_its_first_steps(
    runs: Path,
    tiny_folder: Path,
    tmp_path: Path,
) -> None:
    path = bundled(runs, "train", tmp_path)
    found = ("--model", tiny_folder, "--data", runs / "data", "--run")
    whole = call("bundle", "check", path, *found)
    assert whole["outcome"] == "bit-equal"
    assert whole["notes"] == ["The adapter's file is the same, byte by byte."]
    assert [number["name"] for number in whole["numbers"]][:2] == ["step 1 loss", "step 1 held-out loss"]
    part = call("bundle", "check", path, *found, "--steps", "2")
    assert part["outcome"] == "bit-equal"
    assert {number["name"].split()[1] for number in part["numbers"]} == {"1", "2"}


def test_an_evaluation_is_repeated_from_the_bundle_alone(runs: Path, tiny_folder: Path, tmp_path: Path) -> None:
    path = bundled(runs, "after", tmp_path, "--with-data", "--with-adapter")
    done = call("bundle", "check", path, "--model", tiny_folder, "--run")
    assert done["outcome"] == "bit-equal"
    states = {line["what"]: line["state"] for line in done["lines"]}
    assert states["held-out text altro.txt"] == states["benchmark il_faro"] == states["adapter adapter"] == "included"
    names = {number["name"] for number in done["numbers"]}
    assert {"il_faro acc", "bits per byte", "sample_questions: items graded alike"} <= names


def test_a_comparison_is_repeated_without_model_or_data(runs: Path, tmp_path: Path) -> None:
    done = call("bundle", "check", bundled(runs, "compare", tmp_path), "--run")
    assert done["outcome"] == "bit-equal"
    assert len(done["numbers"]) > 20


def test_data_that_are_missing_or_changed_are_named(runs: Path, tiny_folder: Path, tmp_path: Path) -> None:
    path = bundled(runs, "before", tmp_path)
    done = call("bundle", "check", path, "--model", tiny_folder, "--run", code=1)
    states = {line["what"]: line["state"] for line in done["lines"]}
    assert states["held-out text altro.txt"] == "missing"
    assert done["repeatable"] is False
    assert done["outcome"] is None
    other = tmp_path / "other"
    shutil.copytree(runs / "data", other)
    (other / "altro.txt").write_text("un altro testo\n", encoding="utf-8")
    done = call("bundle", "check", path, "--model", tiny_folder, "--data", other, code=1)
    assert {line["what"]: line["state"] for line in done["lines"]}["held-out text altro.txt"] == "different"
    missing = call("bundle", "check", path, "--data", runs / "data", code=1)
    assert "add --model" in next(line["here"] for line in missing["lines"] if line["what"] == "model")


def test_another_version_and_other_threads_are_told(
    runs: Path,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    path = bundled(runs, "before", tmp_path)
    threads = torch.get_num_threads()
    monkeypatch.setattr("stilnovo.bundle.check.environment", lambda: made_elsewhere(threads + 1))
    done = call("bundle", "check", path, "--model", tiny_folder, "--data", runs / "data", "--run")
    assert {"stilnovo's code", "torch", "threads"} <= set(done["different"])
    assert done["outcome"] == "bit-equal"  # the same machine in truth
    assert torch.get_num_threads() == threads


def made_elsewhere(threads: int) -> dict[str, Any]:
    from stilnovo.runlog import environment

    here = environment()
    here["versions"] |= {"stilnovo": "9.9", "torch": "9.9"}
    return {**here, "source_sha256": "0" * 64, "computing": {**here["computing"], "threads": threads}}


def test_other_numbers_are_not_repeated(runs: Path, tiny_folder: Path, tmp_path: Path) -> None:
    contents = contents_of(runs / "train")
    rows = [json.loads(line) for line in contents.members["run/metrics.jsonl"].decode().splitlines()]  # type: ignore[union-attr]
    rows[1]["loss"] *= 1.001
    contents.members["run/metrics.jsonl"] = "".join(json.dumps(row) + "\n" for row in rows).encode()
    found = ("--model", tiny_folder, "--data", runs / "data", "--run", "--steps", "2")
    write_bundle(tmp_path / "near.zip", contents.members)
    assert call("bundle", "check", tmp_path / "near.zip", *found)["outcome"] == "within tolerance"
    rows[0]["loss"] *= 1.1
    contents.members["run/metrics.jsonl"] = "".join(json.dumps(row) + "\n" for row in rows).encode()
    write_bundle(tmp_path / "far.zip", contents.members)
    assert call("bundle", "check", tmp_path / "far.zip", *found, code=1)["outcome"] == "not repeated"


def test_an_altered_member_is_named(runs: Path, tmp_path: Path) -> None:
    path, altered = bundled(runs, "before", tmp_path), tmp_path / "altered.zip"
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(altered, "w") as target:
        for name in archive.namelist():
            content = archive.read(name)
            target.writestr(name, content.replace(b'"acc"', b'"acd"') if name == "run/evaluation.json" else content)
    said = call("bundle", "check", altered, code=2)["output"]
    assert "run/evaluation.json: changed" in said


def test_any_damaged_byte_is_noticed(runs: Path, tmp_path: Path) -> None:
    whole, drawn = bundled(runs, "compare", tmp_path).read_bytes(), random.Random(5)
    facts = OpenedBundle(tmp_path / "compare.zip")
    facts.close()
    damaged = tmp_path / "damaged.zip"
    for _ in range(60):
        at, content = drawn.randrange(len(whole)), bytearray(whole)
        content[at] ^= 1 << drawn.randrange(8)
        damaged.write_bytes(content)
        try:
            bundle = OpenedBundle(damaged)
        except InputError:
            continue
        assert bundle.faults or {name: bundle.json(name) for name in bundle.members if name.endswith(".json")}
        if not bundle.faults:  # a byte of the archive's own that says nothing: a time, an attribute
            with zipfile.ZipFile(tmp_path / "compare.zip") as first, zipfile.ZipFile(damaged) as second:
                assert all(first.read(name) == second.read(name) for name in first.namelist())
        bundle.close()
    for cut in (0, 1, 30, len(whole) // 2, len(whole) - 1):
        damaged.write_bytes(whole[:cut])
        with pytest.raises(InputError):
            OpenedBundle(damaged)


@pytest.mark.parametrize(
    "name",
    ["../out", "/etc/passwd", "a/../../b", "C:\\x", "C:/x", "a\\b", "a//b", "./a", "", "con", "a/nul.txt", "a\0b"],
)
def test_names_that_lead_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    assert name_fault(name)
    path = tmp_path / "evil.zip"
    listed = {"format": 1, "members": [{"name": name, "bytes": 1, "sha256": "0" * 64}]}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MANIFEST, json.dumps(listed))
        if "\0" not in name and name:
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, b"x")
    try:
        bundle = OpenedBundle(path)
    except InputError:
        return
    assert bundle.faults
    bundle.close()


def test_members_longer_than_they_say_and_links_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    listed = {"format": 1, "members": [{"name": "a", "bytes": 10, "sha256": "0" * 64}]}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, json.dumps(listed))
        archive.writestr("a", b"0" * 10_000_000)
    assert OpenedBundle(path).faults == [("a", "damaged: longer than 10 bytes")]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MANIFEST, json.dumps({"format": 1, "members": []}))
        link = zipfile.ZipInfo("a")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="links"):
        OpenedBundle(path)


def test_python_of_a_bundle_is_never_run(runs: Path, tiny_folder: Path, tmp_path: Path) -> None:
    """A task file that is code is taken from one's own folders alone."""
    task = tmp_path / "mine" / "task.py"
    task.parent.mkdir()
    task.write_text(
        "from stilnovo.benchmarks.task import MultipleChoice, Task\n"
        "items = [MultipleChoice(str(n), 'Il sole è', (' caldo', ' blu'), 0) for n in range(8)]\n"
        "TASK = Task('mine', '1.0', 'here', 'mine', ('acc',), ('test',), lambda request: items)\n"
    )
    call(
        "evaluate",
        "--model",
        tiny_folder,
        "--quantization",
        "none",
        "--task-file",
        task,
        "--no-cache",
        "--out",
        tmp_path / "run",
    )
    call("bundle", tmp_path / "run", "--with-data", "--out", tmp_path / "code.zip")
    done = call("bundle", "check", tmp_path / "code.zip", "--model", tiny_folder, code=1)
    assert {line["what"]: line["state"] for line in done["lines"]}["benchmark mine"] == "missing"
    own = ("--model", tiny_folder, "--data", task.parent, "--run")
    assert call("bundle", "check", tmp_path / "code.zip", *own)["outcome"] == "bit-equal"


def hostile(runs: Path, path: Path, change: Any) -> Path:
    """A bundle of the evaluation with other facts and settings, under a manifest that agrees with them."""
    members = contents_of(runs / "before", with_data=True).members
    facts, run = (json.loads(members[name]) for name in (FACTS, "run/evaluation.json"))  # type: ignore[arg-type]
    change(facts, run, members)
    members |= {FACTS: json.dumps(facts).encode(), "run/evaluation.json": json.dumps(run).encode()}
    write_bundle(path, members)
    return path


@pytest.mark.parametrize("way", ["built in", "path of a task", "given", "task file", "guard"])
def test_a_hostile_bundle_runs_nothing_and_writes_nowhere(
    way: str, runs: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    sign, there = tmp_path / "sign", tmp_path / "there.py"
    code = f"open({str(sign)!r}, 'w')\nTASK = None\n".encode()
    there.write_bytes(code)
    file = {"bytes": len(code), "sha256": sha256(code).hexdigest(), "member": "data/evil"}

    def change(facts: dict[str, Any], run: dict[str, Any], members: dict[str, Any]) -> None:
        members["data/evil"] = code
        run["settings"] |= {"tasks": ["il_faro"], "text": None}
        mine = {"use": "benchmark", "given": "il_faro", "kind": "built in", "included": True}
        if way == "built in":
            facts["data"] = [{**mine, "task_file": "t.py", "files": [{"name": "t.py", **file}]}]
        elif way == "path of a task":
            facts["data"] = []
            run["settings"]["tasks"] = [str(there)]
        elif way == "task file":
            facts["data"] = [{**mine, "task_file": f"{'../' * 20}{there}", "files": []}]
        else:
            run["settings"]["tasks"] = ["sample_questions"]
            out = f"{'../' * 20}{tmp_path}/out"
            facts["data"] = [
                {
                    "use": "held-out text",
                    "given": out,
                    "kind": "files",
                    "included": True,
                    "files": [{"name": "a.txt", **file}],
                }
            ]

    if way == "guard":
        contents = contents_of(runs / "train", with_data=True)
        recipe = yaml.safe_load(contents.members["run/recipe.yaml"])  # type: ignore[arg-type]
        recipe["guard"] |= {"every": 1, "tasks": [str(there)]}
        contents.members["run/recipe.yaml"] = yaml.safe_dump(recipe).encode()
        write_bundle(tmp_path / "evil.zip", contents.members)
    else:
        hostile(runs, tmp_path / "evil.zip", change)
    code_of = 1 if way == "given" else 2  # its text is scored, as another one
    call("bundle", "check", tmp_path / "evil.zip", "--model", tiny_folder, "--run", code=code_of)
    assert not sign.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"versions": []},
        {"data": [{"use": "benchmark"}]},
        {"data": "x"},
        {"model": {"a": 1}},
        {"model": []},
        {"computing": {"variables": [1]}},
        {"hardware": None},
        {"name": "\ud800"},
        {"command": "rm"},
        {"code": {}},
        {"date": 3},
        {"format": 2},
    ],
)
def test_facts_of_another_shape_are_refused_in_words(change: dict[str, Any], runs: Path, tmp_path: Path) -> None:
    path = hostile(runs, tmp_path / "odd.zip", lambda facts, *_: facts.update(change))
    assert "does not read" in call("bundle", "check", path, code=2)["output"]


def test_what_is_private_is_taken_out(tmp_path: Path) -> None:
    scrub = Scrubber(tmp_path)
    node = platform.node()
    facts = {
        "command": ["/usr/bin/stilnovo", "chat", "--api-key", "abc123", "--token=xyz", f"--out={tmp_path}/runs/a"],
        "api_key": "abc123", "where": f"{tmp_path}/data/a.jsonl", "other": "/srv/geheim/anna/b.jsonl", "home": "~anna/c.txt",
        "said": "read /srv/geheim/anna/b.jsonl, and more", "url": "http://anna:pw@10.0.0.7:8000/v1",
        "win": "C:\\Users\\anna\\d.txt",
        "hub": "https://huggingface.co/a/b", "local": "http://127.0.0.1:8000/v1", "key": "hf_" + "A" * 30, "share": 0.5,
        "set": "data.paths=/x/y/z.txt",
        "file": "file:///srv/geheim/anna/e.txt",
    }  # fmt: skip
    scrub.learn(facts)
    clean = scrub.value(facts)
    text = json.dumps(clean)
    assert not [
        word for word in ("anna", "geheim", "abc123", "xyz", "10.0.0.7", "hf_A", str(tmp_path)) if word in text
    ], text
    assert clean["where"] == "data/a.jsonl"
    assert clean["other"] == "b.jsonl"
    assert clean["said"] == "read b.jsonl, and more"
    assert (clean["hub"], clean["local"], clean["share"]) == (facts["hub"], facts["local"], 0.5)
    assert clean["api_key"] == REMOVED
    assert scrub.command(facts["command"])[:3] == ["stilnovo", "chat", "--api-key"]
    assert len(node) <= 3 or node not in json.dumps(scrub.value({"on": f"made on {node}."}))


def test_texts_of_a_model_keep_their_slashes(tmp_path: Path) -> None:
    scrub = Scrubber(tmp_path)
    item = {"items": [{"id": "a/b", "text": "sì e/o no: 1/2, /etc/motto, km/h /x/y"}]}
    assert scrub.value(item) == item


def test_any_path_is_taken_out(tmp_path: Path) -> None:
    drawn = random.Random(7)
    for _ in range(300):
        words = [
            "".join(drawn.choices(string.ascii_lowercase + "._- é", k=drawn.randint(2, 9))).strip(" .") or "x"
            for _ in range(4)
        ]
        path = "/" + "/".join(["rootfolder", *words])
        facts = {"a": path, "b": f"data.paths={path}", "c": [path, f"so: {path}"], "d": {"e": f"({path})"}}
        scrub = Scrubber(tmp_path)
        scrub.learn(facts)
        assert "rootfolder" not in json.dumps(scrub.value(facts)), path


def test_a_number_is_equal_near_or_neither() -> None:
    outcomes = [RepeatedNumber("a", 1.0, here, 0.1).outcome for here in (1.0, 1.05, 1.2, None)]
    assert outcomes == ["bit-equal", "within tolerance", "not repeated", "not repeated"]


def test_what_is_no_run_or_no_bundle_is_said(tmp_path: Path, runs: Path) -> None:
    assert "holds no run" in call("bundle", tmp_path, code=2)["output"]
    assert "no folder" in call("bundle", tmp_path / "none", code=2)["output"]
    assert "no bundle" in call("bundle", "check", runs / "data" / "quiz.yaml", code=2)["output"]
    assert "needs --run" in call("bundle", "check", runs / "data" / "quiz.yaml", "--steps", "2", code=2)["output"]


@pytest.mark.parametrize("kind", ["prepared", "sft", "dpo"])
def test_trainings_of_every_kind_are_repeated(kind: str, runs: Path, tiny_folder: Path, tmp_path: Path) -> None:
    options: tuple[str | Path, ...] = (
        "--data",
        "sample-chat",
        "--set",
        "train.task=sft",
        "--adapter",
        runs / "train" / "adapter",
    )
    if kind == "dpo":
        options = ("--data", "sample-pairs", "--set", "train.task=dpo")
    elif kind == "prepared":
        call("prepare", runs / "data" / "lettere.jsonl", "--model", tiny_folder, "--out", tmp_path / "corpus")
        options = ("--data", tmp_path / "corpus")
    model = ("--model", tiny_folder, "--quantization", "none", "--set", "data.pack_tokens=512")
    call("train", *model, *options, "--steps", "1", "--out", tmp_path / kind)
    path = bundled(tmp_path, kind, tmp_path, "--with-data", "--with-adapter")
    with zipfile.ZipFile(path) as archive:
        private = (str(tiny_folder).encode(), str(tmp_path).encode(), str(runs).encode())
        assert not [name for name in archive.namelist() if any(word in archive.read(name) for word in private)]
    done = call("bundle", "check", path, "--model", tiny_folder, "--run")
    assert done["outcome"] == "bit-equal"
    assert done["notes"] == ["The adapter's file is the same, byte by byte."]


def test_a_run_that_wrote_down_less_is_repeated_too(runs: Path, tiny_folder: Path, tmp_path: Path) -> None:
    """As older versions wrote it: no inputs, no hash of the sources, no threads."""
    older = tmp_path / "older"
    shutil.copytree(runs / "train", older)
    manifest = json.loads((older / "manifest.json").read_text(encoding="utf-8"))
    for key in ("inputs", "source_sha256", "computing", "weights_sha256", "model_id", "frozen_adapter_sha256"):
        del manifest[key]
    (older / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    path = bundled(tmp_path, "older", tmp_path)
    facts = json.loads(zipfile.ZipFile(path).read(FACTS))
    assert facts["data"][0]["found"] == "when the bundle was made"
    done = call("bundle", "check", path, "--model", tiny_folder, "--data", runs / "data", "--run", "--steps", "1")
    assert done["outcome"] == "bit-equal"
    assert {line["what"]: line["state"] for line in done["lines"]}["model"] == "not recorded"


def test_written_answers_under_a_chat_template_are_repeated(tiny_folder: Path, tmp_path: Path) -> None:
    rows = [{"d": f"Chi scrisse il libro {n}?", "r": ["Dante"]} for n in range(3)]
    (tmp_path / "domande.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    quiz = "name: scritte\nfile: domande.jsonl\nprompt: 'Domanda: {{d}}'\ntarget: r\nmax_tokens: 4\n"
    (tmp_path / "quiz.yaml").write_text(quiz, encoding="utf-8")
    asked = ("--chat-template", "--system", "Rispondi.", "--repeats", "2", "--temperature", "0.8", "--no-cache")
    model = ("--model", tiny_folder, "--quantization", "none")
    call("evaluate", *model, "--task-file", tmp_path / "quiz.yaml", *asked, "--out", tmp_path / "run")
    done = call("bundle", "check", bundled(tmp_path, "run", tmp_path, "--with-data"), "--model", tiny_folder, "--run")
    assert done["outcome"] == "bit-equal"
    same = next(number for number in done["numbers"] if number["name"] == "scritte: answers with the same words")
    assert same["recorded"] == same["here"] > 0
