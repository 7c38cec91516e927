"""Errors as a user reads them: ``error: what is wrong``, and an exit code that tells the truth.

0: it worked. 1: it did not. 2: the command was misspelt. 74: it worked, but what it had to say
could not be written; 141: since whoever read it has left, as ``| head`` does, which is no error.
130: it was interrupted; 129, 143: by a signal (SIGHUP, SIGTERM).
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import ParamSpec

import typer

from silotune.signals import Terminated, how

P = ParamSpec("P")

ERROR, UNHEARD, LEFT = 1, 74, 141

MEMORY = (
    "out of memory: lower train.per_device_train_batch_size, or set "
    "model.gradient_checkpointing: non-reentrant"
)


def reported(verb: Callable[P, None]) -> Callable[P, None]:
    """A verb whose errors are sentences; ``SILOTUNE_DEBUG=1`` shows where they come from."""

    @functools.wraps(verb)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            verb(*args, **kwargs)
        except (typer.Exit, typer.BadParameter):
            raise  # typer knows what to do
        except KeyboardInterrupt as interrupt:
            print(f"stopped: {how(interrupt)}", file=sys.stderr, flush=True)
            raise typer.Exit(code_of(interrupt)) from None
        except Exception as error:
            if os.environ.get("SILOTUNE_DEBUG") == "1":
                traceback.print_exc()
            complain(*sentences(error))
            raise typer.Exit(ERROR) from None

    return wrapper


def code_of(interrupt: KeyboardInterrupt) -> int:
    """The exit code, as a shell tells of whoever ends by a signal."""
    number = interrupt.signal if isinstance(interrupt, Terminated) else signal.SIGINT
    return 128 + number


OPTIONS = {
    "client": "--silo",
    "records": "--input",
    "output": "--output",
    "format": "--format",
    "mask_expert": "--mask-expert",
    "resume": "--resume",
    "digest": "--digest",
    "count": "--count",
}
"""Arguments -> the options that give them."""


def complain(*lines: str) -> None:
    """Say what is wrong, on stderr."""
    for line in lines:
        print(f"error: {line}", file=sys.stderr, flush=True)


def note(text: str) -> None:
    """Say on stderr what is not wrong, but may not be meant."""
    print(f"notice: {text}", file=sys.stderr, flush=True)


def sentences(error: Exception) -> list[str]:
    """What is wrong, one line a problem."""
    from silotune.config import ConfigError
    from silotune.config.fields import in_keys  # they take seconds to import

    text = " ".join(str(error).split())
    match error:
        case MemoryError():
            return [MEMORY]
        case RuntimeError() if "out of memory" in text or "not enough memory" in text:
            return [MEMORY]
        case OSError() if error.strerror:
            return [f"{error.filename or 'operating system'}: {error.strerror}"]
        case ValueError() if text:
            whole = str(error)
            lines = (whole if isinstance(error, ConfigError) else in_keys(whole)).splitlines()
            return list(map(_in_options, lines))
        case RuntimeError() | OSError() | ImportError() if text:
            return [in_keys(text)]
        case _:
            return [
                f"{type(error).__name__}: {text}; this is a mistake in silotune: please report it, "
                "with what SILOTUNE_DEBUG=1 shows"
            ]


def _in_options(line: str) -> str:
    """A sentence about an argument, in the words of the command line."""
    word, colon, text = line.partition(":")
    return f"{OPTIONS.get(word, word)}{colon}{text}"
