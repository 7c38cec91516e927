"""The stream is AES-256 in counter mode, its forks are independent, and no copy of it is read."""

import copy
import hashlib
import hmac
import json
import multiprocessing
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from silotune.privacy.mechanisms.secure_rng import Randomness, _counter_mode

KEY = bytes(range(32))


def hexes(text):
    return bytes.fromhex(text.replace(" ", ""))


def test_counter_mode_gives_the_standards_numbers():
    """NIST SP 800-38A, F.5.5 (CTR-AES256.Encrypt)."""
    key = hexes("603deb1015ca71be2b73aef0857d7781 1f352c073b6108d72d9810a30914dff4")
    plain = hexes(
        "6bc1bee22e409f96e93d7e117393172a ae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52ef f69f2445df4f9b17ad2b417be66c3710"
    )
    cipher = hexes(
        "601ec313775789a5b7a7f504bbf3d228 f443e3ca4d62b59aca84e990cacaf5c5"
        "2b0930daa23de94ce87017ba2d84988d dfc9c58db67aada613c2dd08457941a6"
    )
    first_block = hexes("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    assert _counter_mode(key, first_block).update(plain) == cipher
    stream = _counter_mode(key, first_block).update(bytes(64))
    assert bytes(a ^ b for a, b in zip(stream, plain, strict=True)) == cipher


def derived(key, purpose):
    return hmac.new(key, purpose, hashlib.sha256).digest()


def reference(key, n):
    """The first ``n`` words, block by block and without counter mode."""
    cipher = Cipher(AES(derived(key, b"stream")), ECB()).encryptor()
    blocks = b"".join(cipher.update(i.to_bytes(16, "big")) for i in range(n))
    return np.frombuffer(blocks, dtype="<u8")[:n]


def test_a_stream_is_the_blocks_from_zero_on():
    assert np.array_equal(Randomness(KEY).words(101), reference(KEY, 101))


def test_a_fork_is_a_stream_of_a_derived_key():
    key = derived(KEY, b"fork " + json.dumps(["row", 3]).encode())
    assert np.array_equal(Randomness(KEY).fork("row", 3).words(9), reference(key, 9))


def test_numbers_stay_the_same_for_good():
    """A run that was stopped is continued by a later version, from its key."""
    g = Randomness.insecure(0)
    assert [hex(w) for w in g.words(2)] == ["0x42c1c7f3c57725fe", "0x16e7e4fa9726b1e9"]
    assert [hex(w) for w in g.fork("noise", 7).words(2)] == [
        "0xed18ed35c2ea3420",
        "0xa4d72b05b294d221",
    ]


@pytest.mark.parametrize("parts", [[8], [3, 5], [1] * 8, [0, 7, 0, 1]])
def test_words_come_one_after_another_however_they_are_asked_for(parts):
    g = Randomness(KEY)
    assert np.array_equal(np.concatenate([g.words(n) for n in parts]), reference(KEY, 8))


def test_words_belong_to_the_caller():
    words = Randomness(KEY).words(4)
    assert words.dtype == np.uint64
    words[:] = 0  # writable, so that torch takes it without a copy


def test_words_look_uniform_and_counted_ones_do_not():
    def p(words):
        counts = np.bincount(words.view(np.uint8), minlength=256)
        return stats.chisquare(counts).pvalue

    words = Randomness.insecure(1).words(100_000)
    assert 1e-4 < p(words) < 1 - 1e-4
    assert len(set(words.tolist())) == len(words)
    assert p(np.arange(100_000, dtype=np.uint64)) < 1e-12


def test_secret_streams_differ_each_time():
    first = {int(Randomness.secret().words(1)[0]) for _ in range(50)}
    assert len(first) == 50


def test_secret_keys_come_from_the_operating_system(monkeypatch):
    monkeypatch.setattr("os.urandom", lambda n: KEY[:n])
    assert np.array_equal(Randomness.secret().words(3), reference(KEY, 3))


def test_insecure_streams_repeat_and_differ_by_seed():
    first = [int(Randomness.insecure(seed).words(1)[0]) for seed in (0, 1, -1, 10, 2**70, 0)]
    assert first[0] == first[-1]
    assert len(set(first)) == 5


@pytest.mark.parametrize("length", [0, 16, 24, 31, 33])
def test_a_key_of_another_length_is_refused_and_not_shown(length):
    with pytest.raises(ValueError, match="key of 32 bytes") as refusal:
        Randomness(b"\x7f" * length)
    assert "7f" not in str(refusal.value)


def test_a_fork_does_not_depend_on_what_was_read():
    g = Randomness(KEY)
    early = g.fork("noise", 1)
    g.words(1000)
    early.words(10)
    late = g.fork("noise", 1)
    assert np.array_equal(late.words(5), Randomness(KEY).fork("noise", 1).words(5))


def test_a_fork_takes_nothing_from_its_parent():
    g = Randomness(KEY)
    g.fork("noise").words(100)
    assert np.array_equal(g.words(8), reference(KEY, 8))


ADDRESSES = st.lists(st.one_of(st.integers(), st.text(max_size=4)), max_size=3)


@given(ADDRESSES, ADDRESSES)
def test_different_addresses_are_different_streams(left, right):
    g = Randomness(KEY)
    same = np.array_equal(g.fork(*left).words(2), g.fork(*right).words(2))
    assert same == (left == right)


def test_addresses_that_are_easily_confused():
    g = Randomness(KEY)
    addresses = [(), ("",), ("1",), (1,), ("ab",), ("a", "b"), ("b", "a"), ('a", "b',), ("a, b",)]
    forks = [g, *(g.fork(*a) for a in addresses), g.fork("a").fork("b"), g.fork("b").fork("a")]
    assert len({tuple(f.words(2).tolist()) for f in forks}) == len(forks)


def test_an_address_is_of_words_and_whole_numbers():
    with pytest.raises(TypeError):
        Randomness(KEY).fork(b"bytes")


def bits(words):
    return np.unpackbits(words.view(np.uint8))


def test_forks_are_independent_of_each_other_and_of_their_parent():
    """Bits of two independent streams agree as often as coins do."""
    g = Randomness.insecure(2)
    streams = [bits(f.words(10_000)) for f in (g, g.fork("a", 0), g.fork("a", 1), g.fork("b", 0))]

    def p(x, y):
        return stats.binomtest(int((x == y).sum()), len(x)).pvalue

    for i, x in enumerate(streams):
        for y in streams[:i]:
            assert p(x, y) > 1e-4
    assert p(streams[0], bits(Randomness.insecure(2).words(10_000))) < 1e-12


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{0!r}".format], ids=range(4))
def test_the_key_is_never_shown(show):
    shown = show({"draws": (Randomness(b"K" * 32), Randomness(KEY).fork("a"))})
    assert "Randomness(secret)" in shown
    assert "KK" not in shown
    assert "\\x" not in shown
    assert not hasattr(Randomness(KEY), "__dict__")


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_no_copy_can_be_made(duplicate):
    with pytest.raises(TypeError, match="would repeat its numbers"):
        duplicate(Randomness(KEY))


FORKING = """
import os, sys
from silotune.privacy.mechanisms.secure_rng import Randomness
g = Randomness(bytes(32))
g.words(1)
child = os.fork()
if child == 0:
    refused = []
    for read in (lambda: g.words(1), lambda: g.fork("a")):
        try:
            read()
        except RuntimeError as error:
            refused.append("fork" in str(error))
    Randomness(bytes(32)).words(1)  # one of its own is fine
    os._exit(0 if refused == [True, True] else 1)
g.words(1)  # the parent goes on
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.full  # a process to start
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_is_refused_its_parents_stream():
    """In a process of its own, since this one may have threads."""
    done = subprocess.run([sys.executable, "-c", FORKING], stderr=subprocess.PIPE, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_a_process_started_afresh_cannot_be_handed_a_stream():
    with pytest.raises(TypeError, match="would repeat its numbers"):
        multiprocessing.get_context("spawn").Process(target=print, args=(Randomness(KEY),)).start()
