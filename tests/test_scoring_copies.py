"""Dense copies with which an evaluation is faster: left out where they do not fit, before anything is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stilnovo.generate.generator import dense_weights
from stilnovo.model import budget as model_budget
from stilnovo.model.llama import Llama
from stilnovo.model.quantize import FrozenLinear
from stilnovo.plan.account import Command, ModelUse, account, in_scheme, truest_scheme, what_would, within
from stilnovo.plan.choice import Budget
from stilnovo.plan.shape import SMOLLM2_135M


@pytest.mark.parametrize("command", ["evaluate", "sweep"])
def test_copies_are_left_out_before_anything_is_refused(command: Command) -> None:
    dense = ModelUse(command=command, config=SMOLLM2_135M, scheme="none", on_card=False, value_bytes=4)
    fast = in_scheme(dense, "nf4")
    lean = replace(fast, copies=0.0)
    assert fast.copies > 0
    assert account(lean).host < account(dense).host < account(fast).host  # with its copies nf4 is the dearest
    budget = Budget(0, account(lean).host, context=0, reserve=0)
    assert account(within(fast, budget)).fits(budget)
    assert within(fast, Budget(0, account(fast).host, context=0, reserve=0)) == fast
    assert truest_scheme(dense, budget) == "nf4"
    assert what_would(within(fast, budget), Budget(0, account(lean).host - 2**20, context=0, reserve=0)).startswith(
        "1.0 MiB more"
    )


def test_an_evaluation_keeps_no_copies_that_do_not_fit(tiny: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    use = ModelUse(command="evaluate", config=SMOLLM2_135M, scheme="nf4", on_card=False, value_bytes=4)
    linears = [module for module in tiny.modules() if isinstance(module, FrozenLinear)]
    held: list[bool] = []
    for copies in (4.0, 0.0):
        monkeypatch.setattr(model_budget, "_opened", [account(replace(use, copies=copies))])
        with dense_weights(tiny):
            held.append(any(linear._kept is not None for linear in linears))
    assert held == [True, False]
