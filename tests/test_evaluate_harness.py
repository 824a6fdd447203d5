"""lm-evaluation-harness over our model gives what `stilnovo evaluate` gives; its requests mean what it says they mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import chat_tokenizer
from stilnovo.benchmarks.chat_form import ChatForm
from stilnovo.benchmarks.task import select
from stilnovo.benchmarks.task_file import open_task_file
from stilnovo.benchmarks.tasks import find_tasks
from stilnovo.errors import InputError
from stilnovo.model.attention import Blocks
from stilnovo.scoring.chat_prompts import ChatPrompts
from stilnovo.scoring.evaluate import evaluate
from test_evaluate_scoring import byte_tokenizer, plain_loglikelihood, tiny_llama

pytest.importorskip("lm_eval")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.filterwarnings("default::UserWarning:stilnovo")]

SUBJECTS = ("luce", "acqua", "roccia", "pianta", "stella", "montagna", "cellula")
TASK = """
task: arc_local
dataset_path: json
dataset_kwargs: {data_files: {test: PATH}}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{instruction}}\\nAnswer:"
doc_to_choice: "{{[option_a, option_b, option_c, option_d]}}"
doc_to_target: "{{['A', 'B', 'C', 'D'].index(answer)}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
metadata: {version: 1.0}
"""


def rows() -> list[dict[str, str]]:
    return [
        {
            "id": f"x/{number}", "instruction": f"Che cosa fa la {subject} di giorno?", "option_a": "dorme",
            "option_b": f"cambia la {subject}", "option_c": "niente" * (number % 3 + 1), "option_d": "la notte",
            "answer": "ABCD"[number % 4],
        }
        for number, subject in enumerate(SUBJECTS)
    ]  # fmt: skip


class Request:
    """What the harness hands over, no more than a model looks at."""

    def __init__(self, *args: Any, task: str = "t") -> None:
        self.args, self.task_name = args, task


def harness_model(bos: bool = True, **settings: Any) -> Any:
    from stilnovo.scoring.harness import HarnessModel

    return HarnessModel(tiny_llama(**settings), byte_tokenizer(bos))


def test_the_harness_over_our_model_finds_what_we_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hub"))
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    (tmp_path / "arc_it").mkdir()
    (tmp_path / "arc_it" / "it_test.json").write_text(json.dumps(rows()), encoding="utf-8")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows())), encoding="utf-8")
    task = TASK.replace("PATH", str(tmp_path / "test.jsonl"))
    (tmp_path / "tasks" / "arc_local.yaml").write_text(task, encoding="utf-8")

    client = harness_model()
    manager = TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False)
    theirs = simple_evaluate(model=client, tasks=["arc_local"], task_manager=manager, bootstrap_iters=0)
    selection = select(find_tasks(["arc_it"])[0], tmp_path, "test")
    ours = evaluate(client.model, client.tokenizer, [selection], model_name="tiny").tasks["arc_it"]

    figures = theirs["results"]["arc_local"]
    assert figures["acc,none"] == pytest.approx(ours.score("acc").value)
    assert figures["acc_norm,none"] == pytest.approx(ours.score("acc_norm").value)
    samples = {sample["doc"]["id"]: sample for sample in theirs["samples"]["arc_local"]}
    for item in ours.items:
        found = [float(pair[0][0]) for pair in samples[item.id]["resps"]]
        assert found == pytest.approx(item.loglikelihoods, abs=1e-5)


def test_requests_in_any_order_come_back_in_theirs() -> None:
    client = harness_model()
    header = "Una lunga intestazione che precede ogni domanda.\n\n"
    requests = [
        Request(header + "Uno", " due"), Request(header + "Uno", " tre e molto altro"), Request("Da solo", " qui", task="u"),
        Request(header + "Due", " tre"), Request(header + "Uno", " due"), Request("", "Inizio", task="u"),
    ]  # fmt: skip
    found = client.loglikelihood(requests)
    for (value, greedy), request in zip(found, requests, strict=True):
        assert value == pytest.approx(plain_loglikelihood(client.model, client.tokenizer, *request.args), abs=1e-5)
        assert not greedy, "random weights do not write Italian"


def test_greedy_continuations_are_told() -> None:
    client = harness_model(bos=False)
    told = 0
    for context in (f"La luna {number}" for number in range(60)):
        prompt = torch.tensor(client.tokenizer.encode(context))
        with torch.no_grad():
            logits = client.model(prompt, torch.arange(len(prompt)), Blocks([len(prompt)]))[-1]
        best = client.tokenizer.decode([int(logits.argmax())])
        if len(best) == 1 and best.isascii() and best.isalpha():  # a token that text can spell on its own
            told += 1
            other = "x" if best != "x" else "y"
            (_, first), (_, second) = client.loglikelihood([Request(context, best), Request(context, other)])
            assert first
            assert not second
    assert told, "some context is followed by a letter"


@pytest.mark.parametrize("limit", [512, 10])
def test_rolling_is_every_token_once_in_windows_that_follow_each_other(limit: int) -> None:
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    client = harness_model(max_positions=limit)
    text = "Nel mezzo del cammin di nostra vita."
    tokens = client.tokenizer.encode(text)
    expected = 0.0
    for context, wanted in map(
        make_disjoint_window, get_rolling_token_windows(tokens, client.tokenizer.bos_id, limit, 1)
    ):
        read = torch.tensor([*context, *wanted][:-1])
        with torch.no_grad():
            logits = client.model(read, torch.arange(len(read)), Blocks([len(read)]))
        logs = torch.log_softmax(logits.double(), dim=-1)[-len(wanted) :]
        expected += float(logs[torch.arange(len(wanted)), torch.tensor(wanted)].sum())
    assert client.loglikelihood_rolling([Request(text), Request("")]) == pytest.approx([expected, 0.0], abs=1e-4)


def test_writing_ends_before_a_stop_string() -> None:
    client = harness_model()
    (whole,) = client.generate_until([Request("La luna", {"max_gen_toks": 12})])
    stop = whole[len(whole) // 2]
    (cut, again) = client.generate_until(
        [Request("La luna", {"until": stop, "max_gen_toks": 12}), Request("La luna", {"max_gen_toks": 12})]
    )
    assert cut == whole[: whole.index(stop)]
    assert again == whole


@pytest.mark.parametrize("multiturn", [True, False])
def test_a_chat_template_gives_what_we_find_with_it(
    multiturn: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hub"))
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from stilnovo.scoring.harness import HarnessModel

    (tmp_path / "tasks").mkdir()
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows())), encoding="utf-8")
    settings = "description: 'Un esame.\n'\nnum_fewshot: 2\nfewshot_split: test\nfewshot_config: {sampler: first_n}\n"
    path = tmp_path / "tasks" / "arc_local.yaml"
    path.write_text(TASK.replace("PATH", str(tmp_path / "test.jsonl")) + settings, encoding="utf-8")
    tokenizer = chat_tokenizer(tmp_path, "chatml")
    client = HarnessModel(tiny_llama(), tokenizer)
    theirs = simple_evaluate(
        model=client, tasks=["arc_local"], task_manager=TaskManager(include_path=str(path.parent), include_defaults=False),
        bootstrap_iters=0, apply_chat_template=True, fewshot_as_multiturn=multiturn, system_instruction="Sii breve.",
    )  # fmt: skip
    selection, chat = select(open_task_file(path)), ChatPrompts(tokenizer, ChatForm("Sii breve.", not multiturn))
    ours = evaluate(client.model, tokenizer, [selection], model_name="tiny", chat=chat).tasks["arc_local"]
    samples = {sample["doc"]["id"]: sample for sample in theirs["samples"]["arc_local"]}
    for item in ours.items:
        found = [float(pair[0][0]) for pair in samples[item.id]["resps"]]
        assert found == pytest.approx(item.loglikelihoods, abs=1e-4)
    assert theirs["results"]["arc_local"]["acc_norm,none"] == pytest.approx(ours.score("acc_norm").value)
    with pytest.raises(InputError, match="cannot be begun"):
        client.apply_chat_template([{"role": "user", "content": "Sì?"}], add_generation_prompt=False)
    with pytest.raises(InputError, match="no chat template"):
        harness_model().apply_chat_template([{"role": "user", "content": "Sì?"}])
