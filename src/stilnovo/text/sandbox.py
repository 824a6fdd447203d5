"""The world in which chat templates run, as transformers makes it: Jinja's sandbox and the few functions that templates call.

Unusual: what stands between `{% generation %}` and `{% endgeneration %}`, the assistant's part, is enclosed by signs that the caller
gives, so that it is found in the text again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template

BLOCK_SIGNS = "generation_block_signs"  # the name under which a rendering is given the two signs


def now(pattern: str) -> str:
    """The date as a template writes it; `SOURCE_DATE_EPOCH`, where it is set, stands for now."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch.isdigit() else datetime.now()
    return moment.strftime(pattern)


@lru_cache(maxsize=16)
def compiled(source: str) -> Template:
    """Compile a template in the world in which transformers runs it: the sandbox, `raise_exception`, `strftime_now`, `tojson`."""
    program: Template = _world().from_string(source)
    return program


@lru_cache(maxsize=1)
def _world() -> Any:
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.runtime import Context
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class GenerationBlock(Extension):
        """`{% generation %}` … `{% endgeneration %}`: what the assistant wrote, enclosed by signs while rendering."""

        tags = {"generation"}  # noqa: RUF012 - Jinja's own attribute

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            call = self.call_method("enclosed", [nodes.ContextReference()])
            return nodes.CallBlock(call, [], [], body).set_lineno(line)

        def enclosed(self, context: Context, caller: Callable[[], str]) -> str:
            begin, end = context.get(BLOCK_SIGNS) or ("", "")
            return f"{begin}{caller()}{end}"

    def refuse(message: str) -> str:
        raise TemplateError(message)

    def tojson(value: Any, **settings: Any) -> str:
        return json.dumps(value, **{"ensure_ascii": False, **settings})

    world = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, loopcontrols], cache_size=0
    )
    world.filters["tojson"] = tojson
    world.globals |= {"raise_exception": refuse, "strftime_now": now}
    return world
