"""The pipes of a process that answers: orders come in on stdin, answers go out on stdout."""

from __future__ import annotations

import os
from typing import BinaryIO


def pipes() -> tuple[BinaryIO, BinaryIO]:
    """Orders and answers; whatever prints from here on goes to stderr, not between the bytes."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return os.fdopen(os.dup(0), "rb"), answers
