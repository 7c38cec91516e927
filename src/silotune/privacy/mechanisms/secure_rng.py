"""Where secret coins and noise come from: AES-256 in counter mode, keyed by the operating system.

Privacy holds against whoever cannot predict the noise, so the noise must be as hard to predict as
a good cipher is to break; that rules out every generator made for simulation. A stream encrypts the
blocks 0, 1, 2, ... (NIST SP 800-38A, section 6.5); after n blocks it can be told from true
randomness with an advantage of n^2 / 2^129 at most, unless AES itself is broken.

A stream has forks, each with an address and a key of its own: HMAC-SHA256 of the address, or, for
the cipher, of the word "stream", under the parent's key. So the numbers at an address do not
depend on what was read elsewhere, which lets a stream be continued from its key alone.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from typing import NoReturn

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

KEY_BYTES = 32


class Randomness:
    """One stream of random 64-bit words, and the root of others.

    No copy of a stream can be had by accident, since it would repeat its numbers: it is neither
    copied nor pickled, and a process that ``os.fork`` made cannot read its parent's streams. What
    cannot be seen from here is a copy of the whole machine, or one key used twice. One thread at a
    time reads a stream.

    Args:
        key: 32 bytes that nobody else knows. It is never shown.

    Raises:
        ValueError: if the key has another length.
    """

    __slots__ = ("_cipher", "_key", "_process")

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"randomness needs a key of {KEY_BYTES} bytes, not {len(key)}")
        self._key = key
        self._cipher = _counter_mode(_derived(key, b"stream"))
        self._process = os.getpid()

    @classmethod
    def secret(cls) -> Randomness:
        """A stream that nobody can predict or repeat: a fresh key of the operating system."""
        return cls(os.urandom(KEY_BYTES))

    @classmethod
    def insecure(cls, seed: int) -> Randomness:
        """The same stream for the same seed, for tests and experiments. NOT private."""
        return cls(hashlib.sha256(f"insecure {seed}".encode()).digest())

    def words(self, n: int) -> NDArray[np.uint64]:
        """The next ``n`` words, (n,), each of the 2^64 values equally likely.

        Raises:
            RuntimeError: in a process that ``os.fork`` made after the stream.
        """
        self._check_process()
        out = np.empty(n, dtype=np.uint64)
        self._cipher.update_into(bytes(8 * n), out.view(np.uint8).data)
        return out

    def fork(self, *address: str | int) -> Randomness:
        """The stream at an address below this one, always from its beginning.

        It depends on this stream's key and on the address, not on what was read, and is
        independent of this stream and of all other addresses. An address stands for one purpose:
        whoever asks for it again gets the same numbers again.

        Raises:
            RuntimeError: in a process that ``os.fork`` made after the stream.
        """
        self._check_process()
        text = json.dumps(address, ensure_ascii=False)  # tells "1" from 1, and "a", "b" from "ab"
        return Randomness(_derived(self._key, b"fork " + text.encode()))

    def __repr__(self) -> str:
        return "Randomness(secret)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("randomness is not copied or pickled: the copy would repeat its numbers")

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError(
                "this process is a fork of the one that the randomness belongs to, and would "
                "repeat its numbers; start processes afresh, with randomness of their own"
            )


def _derived(key: bytes, purpose: bytes) -> bytes:
    """A key for one purpose; keys for different purposes are independent."""
    return hmac.digest(key, purpose, "sha256")


def _counter_mode(key: bytes, first_block: bytes = bytes(16)) -> CipherContext:
    """What turns zeros into the encrypted blocks ``first_block``, ``first_block`` + 1, ..."""
    return Cipher(AES(key), CTR(first_block)).encryptor()
