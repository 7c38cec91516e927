"""A worker of an audit whose secret streams all begin with one key, as a fork's would."""

import sys
from pathlib import Path

from silotune.cli.worker import work_for_audit
from silotune.privacy.mechanisms.secure_rng import Randomness

asked = iter(range(10**9))
Randomness.secret = classmethod(lambda cls: cls(next(asked).to_bytes(32, "big")))
work_for_audit(Path(sys.argv[1]))
