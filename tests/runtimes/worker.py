"""A pool worker over toy silos, which can be told to misbehave once."""

import os
import sys
from pathlib import Path

import torch

from silotune.optim import SGD
from silotune.runtimes import pool, serve
from toys import bench, recipe, silos


def main() -> None:
    fault, flag = sys.argv[1], Path(sys.argv[2])
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    answer = pool._answer

    def faulty(payload, *rest):
        if fault == "dies-always":
            os._exit(9)
        first = not flag.exists()
        if fault != "none" and first:
            flag.touch()
            if fault == "dies":
                os._exit(9)
            if fault == "dies-after":
                answer(payload, *rest)
                os._exit(9)
            if fault == "hangs":
                import time

                time.sleep(600)
        reply = answer(payload, *rest)
        if fault == "corrupt" and first:
            return reply[:-1] + bytes([reply[-1] ^ 1])
        if fault == "fails":
            return pool._ERROR + b"data.path: gone"
        return reply

    pool._answer = faulty
    serve(bench(recipe("ffa-lora", SGD(learning_rate=0.3))), silos(), sys.stdin.buffer, pipe)


main()
