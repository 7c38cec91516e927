"""Toy silos in a process of their own: a worker, or the trainer of a site.

It commits the fault that it finds in a file, once. The file is removed by whoever commits it, so
that no other worker does, and none does it again.
"""

import os
import sys
import time
from pathlib import Path

import torch

from silotune.optim import SGD
from silotune.runtimes import serve
from silotune.runtimes.responder import Responder
from toys import axes, silos, trainer


def claimed(file: Path) -> str:
    """The fault that this worker is to commit now."""
    mine = file.with_suffix(f".{os.getpid()}")
    try:
        file.rename(mine)
    except FileNotFoundError:
        return "none"
    return mine.read_text()


def main() -> None:
    file = Path(sys.argv[1])
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    answer = Responder.answer

    def faulty(responder, order):
        fault = claimed(file)
        if fault == "dies":
            os._exit(9)
        if fault == "hangs":
            time.sleep(600)
        reply = answer(responder, order)
        if fault == "dies-after":
            os._exit(9)
        if fault == "corrupt":
            return reply[:-1] + bytes([reply[-1] ^ 1])
        return reply

    Responder.answer = faulty
    learner = trainer(axes("ffa-lora", SGD(lr=0.3)))
    serve(learner, silos(), sys.stdin.buffer, pipe)


main()
