"""Benchmark files of our own in the form of the real ones, which are not shipped."""

from __future__ import annotations

from typing import Any

from test_evaluate_reference import HELLASWAG_TEXT, MMLU_IT, TRUTHFUL_IT, TWINS, WINOGRANDE

_EXAMS = [
    {
        "id": language, "answerKey": "B", "info": {"subject": "Biology", "language": language},
        "question": {"stem": "Che cosa?", "choices": {"text": ["questo", "quello"], "label": ["A", "B"]}},
    }
    for language in ("Italian", "Polish")
]  # fmt: skip
_INVALSI = {
    "Prova_PK": "1", "context": "Una volpe incontrò un riccio.", "question": "Chi parla?", "Grado": "5",
    "section": "Comprensione del testo", "options": [{"scelta": "A. la volpe"}, {"scelta": "B. il riccio"}], "answer": ["B"],
}  # fmt: skip
_REPORT_QUESTIONS = [
    {"prompt_domanda": f"{asked}?\nA. La volpe.\nB. Il riccio.\nC. Un cane.\nD. Tu.", "risposta_corretta": "B"}
    for asked in ("Chi parla", "Chi tace")
]
_REPORT = {
    "invalsi_2008_2010/invalsi_ita_2007_2008.json": [
        {"contesto": "Una volpe incontrò un riccio.", "domande": _REPORT_QUESTIONS}
    ]
}
_SQUAD = {
    "context": "Il Po nasce dal Monviso.",
    "qas": [{"id": "d1", "question": "Da dove?", "answers": [{"text": "dal Monviso"}]}],
}
_WINOGRANDE = [
    {
        "instruction": f"Fill in the blank. given sentence: {row['sentence']}\n\nOption1: {row['option1']} Option2: {row['option2']} "
        "Answer format: option1/option2",
        "answer": f"option{row['answer']}",
    }
    for row in WINOGRANDE
]
_GSM8K = TWINS["gsm8k_en/gsm8k_test.jsonl"]
# Task → its files (rows, or text; as .jsonl one a line), and how many items they hold.
FILES: dict[str, tuple[dict[str, Any], int]] = {
    "mmlu_it": ({"mmlu_it/it_val.json": MMLU_IT, "mmlu_it/it_dev.json": MMLU_IT}, len(MMLU_IT)),
    "truthfulqa_it": ({"truthfulqa_it/it_validation.json": TRUTHFUL_IT}, len(TRUTHFUL_IT)),
    "exams_it": ({f"exams_it/multilingual_{split}.it.jsonl": _EXAMS for split in ("test", "dev", "train")}, 1),
    "invalsi": (
        {
            "invalsi/invalsi.jsonl": [
                {**_INVALSI, "Domanda_PK": "1", "ID": "1"},
                {**_INVALSI, "Domanda_PK": "2", "ID": "2", "context": ""},
                {**_INVALSI, "Domanda_PK": "3", "ID": "3", "options": [], "answer": ["il riccio", "un riccio"]},
            ]
        },
        3,
    ),
    "invalsi_report": (_REPORT, 2),
    "invalsi_report_written": (_REPORT, 2),
    "squad_it": ({"squad_it/SQuAD_it-dev-half.json": {"data": [{"title": "Po", "paragraphs": [_SQUAD]}]}}, 1),
    "hellaswag": ({"hellaswag_en/hellaswag_val_full.txt": HELLASWAG_TEXT}, 2),
    "winogrande": ({"winogrande_en/test.json": _WINOGRANDE}, len(WINOGRANDE)),
    "gsm8k": ({"gsm8k_en/gsm8k_test.jsonl": _GSM8K}, len(_GSM8K)),
}
