"""Items under a chat template beside lm-evaluation-harness: the same tokens, log-likelihoods and written answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import SPECIALS, TINY, write_byte_tokenizer, write_weights
from stilnovo.benchmarks.chat_form import ChatForm
from stilnovo.benchmarks.task import Generation, MultipleChoice, select
from stilnovo.benchmarks.task_file import open_task_file
from stilnovo.scoring.chat_prompts import ChatPrompts
from stilnovo.scoring.encode import encode_endings
from stilnovo.scoring.packed import answers
from stilnovo.scoring.written import write
from stilnovo.text.template import LLAMA3_JINJA, SMOLLM2_JINJA, RenderedChat
from stilnovo.text.tokenizer import Tokenizer
from test_evaluate_reference import CASES, offline, ours, reference, requests, rows_of

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.filterwarnings("default::UserWarning:stilnovo")]
__all__ = ["offline"]  # its fixture
LLAMA3 = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
BARE = (
    "{% for m in messages %}{{ '[' + m['role'] + '] ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
TEMPLATES: dict[str, tuple[tuple[str, ...], str, dict[str, Any]]] = {
    "chatml": (SPECIALS, SMOLLM2_JINJA, {"eos_token": "<|im_end|>"}),
    "llama3": (LLAMA3, LLAMA3_JINJA, {"eos_token": "<|eot_id|>", "bos_token": "<|begin_of_text|>"}),
    # the tokenizer gives an opening token that the template does not write
    "bare": (LLAMA3, BARE, {"eos_token": "<|eot_id|>", "bos_token": "<|begin_of_text|>", "add_bos_token": True}),
}  # fmt: skip


@pytest.fixture(scope="module", params=TEMPLATES)
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any, Any]:
    """One tiny model with a template: our tokenizer, our model, and the harness's `HFLM`."""
    pytest.importorskip("lm_eval")
    from lm_eval.models.huggingface import HFLM
    from tokenizers import Tokenizer as Fast
    from tokenizers import processors
    from transformers import AutoTokenizer, LlamaForCausalLM

    from stilnovo.model.load import open_model
    from stilnovo.spec import ModelSpec

    specials, source, settings = TEMPLATES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    write_weights(folder, replace(TINY, vocab_size=256 + len(specials), tie_embeddings=True, max_positions=8192))
    write_byte_tokenizer(folder, specials, chat_template=source, **settings)
    if "bos_token" in settings:  # as Llama 3's file adds it
        fast, bos = Fast.from_file(str(folder / "tokenizer.json")), settings["bos_token"]
        fast.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, 0)])
        fast.save(str(folder / "tokenizer.json"))
    model, tokenizer = open_model(ModelSpec(str(folder), quantization="none", device="cpu"))
    hf = LlamaForCausalLM.from_pretrained(folder)
    harness = HFLM(
        pretrained=hf, tokenizer=AutoTokenizer.from_pretrained(folder), batch_size=1, softmax_dtype="float32"
    )
    assert (tokenizer.bos_id is None) == ("bos_token" not in settings)
    return tokenizer, model, harness


def under_template(task: Any, harness: Any, form: ChatForm) -> list[list[tuple[str, str]]]:
    """What the harness asks of a task under the model's template."""
    task.build_all_requests(
        apply_chat_template=True, fewshot_as_multiturn=not form.single_turn, system_instruction=form.system or None,
        chat_template=harness.apply_chat_template, tokenizer_name="tiny",
    )  # fmt: skip
    return requests(task)


FEW = ("mmlu_it, 5 shots", "mmlu, 5 shots", "winogrande")  # asked under every template, the others under one
FORMS = (ChatForm(), ChatForm("Rispondi con una lettera.", single_turn=True), ChatForm("Sii breve.\n"))


@pytest.mark.parametrize("name", CASES)
def test_choices_are_the_references_token_by_token(
    name: str, models: tuple[Tokenizer, Any, Any], tmp_path: Path
) -> None:
    tokenizer, model, harness = models
    if tokenizer.template != "chatml" and name not in FEW:
        return
    case = CASES[name]
    rows, examples = [case.plain(row) for row in rows_of(case.rows)][:4], rows_of(case.examples)
    splits = {"train": examples or rows, "dev": examples or rows, "validation": rows, "val": rows, "test": rows}
    task, items = reference(case.theirs, tmp_path, splits, case.shots), ours(case, rows, examples, tmp_path)
    for form in FORMS:
        chat = ChatPrompts(tokenizer, form)
        theirs, questions = under_template(task, harness, form), [chat.endings(item) for item in items]
        for question, pairs in zip(questions, theirs, strict=True):
            for (context, ending), (prompt, continuation) in zip(question.pairs, pairs, strict=True):
                assert isinstance(context, RenderedChat)
                assert (context.text, ending) == (prompt, continuation)
                ((tokens, start),) = encode_endings(tokenizer, context, [ending])
                assert (tokens[:start], tokens[start:]) == harness._encode_pair(prompt, continuation)
    if name in ("mmlu, 5 shots", "winogrande"):  # numbers too, of questions that share what stands before them
        found = {index: answer for batch in answers(model, tokenizer, questions) for index, answer in batch}
        values = [value for value, _ in harness.loglikelihood(task.instances, disable_tqdm=True)]
        mine = [value for index in sorted(found) for value in found[index].loglikelihoods]
        assert mine == pytest.approx(values, abs=2e-3)


def test_smollm2s_own_tokens_are_the_references(smollm2: tuple[Any, Tokenizer]) -> None:
    """A tokeniser that merges, over the seams of template, prompt and ending."""
    from lm_eval.models.huggingface import HFLM
    from tokenizers import Tokenizer as Fast
    from transformers import PreTrainedTokenizerFast

    tokenizer = smollm2[1]
    hf = PreTrainedTokenizerFast(
        tokenizer_object=Fast.from_str(tokenizer.definition), eos_token="<|im_end|>", chat_template=tokenizer.jinja
    )
    harness = SimpleNamespace(backend="causal", tok_encode=lambda text: hf.encode(text, add_special_tokens=False))
    texts = ("Domanda: perché?\nRisposta:", "  due spazi ", "riga\n", "1.234,5", "È così", "a\n\n", "?")
    for form in FORMS:
        chat = ChatPrompts(tokenizer, form)
        for text in texts:
            item = MultipleChoice("x", text, (" A", "  B", " \nC", " un'altra", " è", " 12"), 0)
            turns = [{"role": turn.role, "content": turn.content} for turn in form.conversation(item)]
            prompt = hf.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            for context, ending in chat.endings(item).pairs:
                ((tokens, start),) = encode_endings(tokenizer, context, [ending])
                assert (tokens[:start], tokens[start:]) == HFLM._encode_pair(harness, prompt, ending)


HARNESS_YAML = """
task: proprio
dataset_path: json
dataset_kwargs: {data_files: {test: test.jsonl, train: train.jsonl}}
test_split: test
fewshot_split: train
fewshot_config: {sampler: first_n}
output_type: generate_until
description: "Un piccolo esame.\\n"
doc_to_text: "Quanto fa {{a}} più {{b}}?"
doc_to_target: "{{a + b}}"
generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 6}
num_fewshot: 2
metric_list: [{metric: exact_match}]
"""


def test_written_answers_and_examples_are_the_references(models: tuple[Tokenizer, Any, Any], tmp_path: Path) -> None:
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    tokenizer, model, harness = models
    for name, base in (("test", 3), ("train", 20)):
        rows = [{"a": base + number, "b": number} for number in range(4)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    path = tmp_path / "proprio.yaml"
    path.write_text(HARNESS_YAML, encoding="utf-8")
    config = load_yaml(path)
    files = {split: str(tmp_path / f"{split}.jsonl") for split in ("test", "train")}
    config["dataset_kwargs"] = {"data_files": files, "cache_dir": str(tmp_path / "cache")}
    task = ConfigurableTask(config=config)
    items = [item for item in select(open_task_file(path)).items if isinstance(item, Generation)]
    for form in FORMS:
        chat = ChatPrompts(tokenizer, form)
        theirs = under_template(task, harness, form)
        assert [chat.prompt(item).text for item in items] == [prompt for ((prompt, _),) in theirs]
        texts = harness.generate_until(task.instances, disable_tqdm=True)
        batches = write(model, tokenizer, items, prompt=chat.prompt)
        written = [answer.text for batch in batches for _, answer in batch]
        assert written == [text.rstrip("\ufffd") for text in texts]
