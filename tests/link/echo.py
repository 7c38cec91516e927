"""A trainer: says that it is there, and gives back what it is sent, behind how often it was asked.

What it is sent may be a word: ``die`` ends it, ``die once FILE`` does so if the file is not there,
``wait FILE`` answers when that file is there, ``pid`` answers with its own; what follows ``pid`` is
of no account.
"""

import os
import sys
import time
from pathlib import Path

from silotune_link.frames import READY, read_frame, write_frame


def main() -> None:
    answers, orders = sys.stdout.buffer, sys.stdin.buffer
    write_frame(answers, READY)
    asked = 0
    while True:
        try:
            order = read_frame(orders)
        except EOFError:
            return
        asked += 1
        write_frame(answers, answer(order, asked))


def answer(order: bytes, asked: int) -> bytes:
    word, _, file = order[:200].decode(errors="replace").rpartition(" ")
    if order == b"die" or (word == "die once" and not Path(file).exists()):
        if word:
            Path(file).touch()
        os._exit(9)
    if order.startswith(b"pid"):
        return str(os.getpid()).encode()
    while word == "wait" and not Path(file).exists():
        time.sleep(0.01)
    return f"{asked} ".encode() + order


main()
