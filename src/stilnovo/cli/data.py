"""`stilnovo data`: training data seen before they are learnt."""

from __future__ import annotations

from typing import Annotated

import typer

from stilnovo.cli.common import (
    AsJson,
    OptionalModel,
    RecipeKeys,
    RecipeName,
    ShownRows,
    command_group,
    emit,
    recipe_changes,
    show,
)

app = command_group("Show what a training would read in data files: `data show`.")


@app.callback()
def _group() -> None:
    """Keep `show` a command of its own."""


@app.command("show")
def show_data(
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="Files, folders, prepared corpora, or `sample`.")],
    model: OptionalModel = None,
    recipe: RecipeName = "demo",
    set_: RecipeKeys = None,
    rows: ShownRows = 3,
    as_json: AsJson = False,
) -> None:
    """Show rows as they would be learnt: template, loss tokens, lengths, what is left out.

    The training objective is the one that fits the rows, unless `--set train.task=…` names one. Of large files an excerpt is read.
    """
    from stilnovo import recipe as recipes
    from stilnovo.cli.data_common import data_facts, data_parts
    from stilnovo.train.dry_run import look, task_for

    given = recipe_changes({"model.name": model, "data.paths": list(files)}, set_ or [])
    chosen = recipes.load(recipe).changed({"train.task": task_for(files), **given})
    recipes.refuse_ignored_keys(chosen, on_card=True)
    seen = look(chosen)
    show(data_parts(seen, rows))
    if chosen.train.task != "text":
        print(f"To train on them: stilnovo train --data {' --data '.join(files)} --set train.task={chosen.train.task}")
    emit(data_facts(seen, rows), as_json)
