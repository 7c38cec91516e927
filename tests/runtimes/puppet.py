"""What a pool takes for a worker: says that it is there and gives one answer to everything.

It imports nothing, so that it is there at once. Without an answer it dies when it is asked; it says
nothing if that is to be "never".
"""

import os
import sys


def say(payload: bytes) -> None:
    sys.stdout.buffer.write(len(payload).to_bytes(8, "big") + payload)
    sys.stdout.buffer.flush()


def main() -> None:
    answer = sys.argv[1].encode()
    say(b"+")
    while size := sys.stdin.buffer.read(8):
        sys.stdin.buffer.read(int.from_bytes(size, "big"))
        if not answer:
            os._exit(9)
        if answer == b"never":
            sys.stdin.buffer.read()  # until it is killed
        say(answer)


main()
