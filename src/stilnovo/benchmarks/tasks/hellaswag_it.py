"""HellaSwag in Italian: which sentence comes next, machine-translated for the Okapi project.

Dataset: https://huggingface.co/datasets/alexandrainst/m_hellaswag (configuration `it`; validation 9,193 of the 10,042
English items). Licence: CC BY-NC 4.0, for measuring only. Not in lists of files that may be passed on: from the hub.
A row (our own words): {"ind": 7, "activity_label": "Canoeing", "ctx_a": "Due donne pagaiano.", "ctx_b": "poi una",
"endings": ["cade in acqua.", …], "label": "0", "source_id": "activitynet~v_…"}

Protocol: task `hellaswag_it` 1.0 of lm-evaluation-harness, 0-shot: the activity, left in English, a colon and the
context; accuracy by characters (`acc_norm`). Items of one source (a video, an article) are a cluster; the breakdown is
by ActivityNet and WikiHow, because the first third of the file is ActivityNet only.
Checked: contexts and endings equal the harness's on rows of this form (tests/test_evaluate_reference.py). Untried on
real rows, which were not at hand.
"""

from __future__ import annotations

from stilnovo.benchmarks.dataset_files import Dataset
from stilnovo.benchmarks.task import Task
from stilnovo.benchmarks.tasks.hellaswag import make_item

DATA = Dataset(
    folder="hellaswag_it",
    hub="alexandrainst/m_hellaswag",
    config="it",
    names={"validation": ("val",)},
    files={"validation": ("it_validation.json", "it_val.json")},
)


TASK = Task(
    name="hellaswag_it",
    version="1.0",
    source="https://huggingface.co/datasets/alexandrainst/m_hellaswag",
    licence="CC BY-NC 4.0",
    metrics=("acc_norm", "acc"),
    splits=("validation",),
    load=DATA.loader(make_item),
    reference="hellaswag_it",
    categories="source",
    untried=True,
)
