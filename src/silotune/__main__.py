"""``python -m silotune`` is the command ``silotune``."""

from silotune.cli import main

main()
