"""Chat dates: a template that prints the date prints the day on which the run began.

``strftime_now``, which chat templates may call, would make records depend on the day they are read.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

_CLOCK = "strftime_now"

_DIRECTIVES = (*"aAbBcdfGHIjmMpSuUVwWxXyYzZ", *(f"-{letter}" for letter in "dHIjmMSy"))
"""What ``strftime`` replaces after a per cent sign, but for the sign itself."""


def pin_date(tokenizer: Any, moment: str) -> None:
    """Stop the clock of a tokenizer's chat templates; one that asks for no date stays as it is.

    Args:
        tokenizer: a run's own; changed in place. None for images.
        moment: in ISO 8601.
    """
    templates = getattr(tokenizer, "chat_template", None)
    when = datetime.fromisoformat(moment)
    if isinstance(templates, dict):
        tokenizer.chat_template = {name: pinned(text, when) for name, text in templates.items()}
    elif isinstance(templates, str):
        tokenizer.chat_template = pinned(templates, when)


def pinned(template: str, when: datetime) -> str:
    """A template whose clock stands still: a macro takes the place of transformers' function."""
    if _CLOCK not in template:
        return template
    replaced = "".join(
        f"|replace({json.dumps('%' + d)}, {json.dumps(when.strftime('%' + d))})"
        for d in _DIRECTIVES
    )
    macro = f"{{%- macro {_CLOCK}(format) -%}}{{{{- format{replaced}|replace('%%', '%') -}}}}"
    return f"{macro}{{%- endmacro %}}\n{template}"
