"""Gradients are taken once and zeroed where they lie; a step that failed leaves nothing of its own in the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stilnovo.engine.blocks import LayerEngine
from stilnovo.engine.product import HostAdapter
from stilnovo.train.loop import Trainer
from test_planning import trainer

PATHS: dict[str, dict[str, Any]] = {
    "torch's autograd": {"engine": "plain"}, "the engine": {}, "masters on the host": {"optimizer_place": "host"},
}  # fmt: skip


def batches(one: Trainer, count: int) -> list[Any]:
    stream = iter(one.stream)
    return [next(stream) for _ in range(count)]


@pytest.mark.parametrize("path", PATHS)
def test_gradients_stay_where_they_are(path: str, tmp_path: Path) -> None:
    one = trainer(tmp_path, **PATHS[path])
    places = set()
    for batch in batches(one, 4):
        one.train_step([batch])
        places.add(tuple(parameter.grad.data_ptr() for parameter in one.parameters if parameter.grad is not None))
    assert len(places) == 1
    assert len(places.pop()) == len(one.parameters)
    assert one.gradient_bytes == sum(parameter.nbytes for parameter in one.parameters)


@pytest.mark.parametrize("path", PATHS)
def test_they_are_there_before_anything_of_the_step(path: str, tmp_path: Path) -> None:
    """Taken in the middle of the first backward they would lie among what comes and goes."""
    one = trainer(tmp_path, **PATHS[path])
    seen: list[bool] = []
    loss = one.batch_loss

    class Looking:
        count = loss.count

        def __call__(self, *arguments: Any) -> Any:
            seen.append(all(parameter.grad is not None for parameter in one.parameters))
            return loss(*arguments)

    one.batch_loss = Looking()
    one.train_step(batches(one, 1))
    assert seen == [True]


@pytest.mark.parametrize(
    ("path", "place"),
    [*((path, "between batches") for path in PATHS), *((path, "inside backward") for path in list(PATHS)[1:])],
)
def test_a_failed_step_leaves_nothing_in_the_next(
    path: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, other = trainer(tmp_path / "whole", **PATHS[path]), trainer(tmp_path / "other", **PATHS[path])
    first, second = batches(whole, 2)
    layer, calls = LayerEngine.backward, [0]

    def failing(*arguments: Any) -> None:
        raise RuntimeError("failed")

    def failing_inside(self: LayerEngine, *arguments: Any, **options: Any) -> None:
        calls[0] += 1
        layer(self, *arguments, **options)
        if calls[0] == 3:
            raise RuntimeError("failed")

    with monkeypatch.context() as patched:
        if place == "between batches":
            patched.setattr(other, "_sign", failing)
        else:
            patched.setattr(LayerEngine, "backward", failing_inside)
        with pytest.raises(RuntimeError, match="failed"):
            other.train_step([second, first])
    expected, found = whole.train_step([first]), other.train_step([first])
    assert (found["loss"], found["gradient_norm"]) == (expected["loss"], expected["gradient_norm"])
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters, other.parameters, strict=True))


def test_they_are_given_back_when_the_training_is_over(tmp_path: Path) -> None:
    one = trainer(tmp_path, optimizer_place="host")
    one.run_all()
    assert isinstance(one.host, HostAdapter)
    assert all(parameter.grad is None for parameter in one.parameters)
