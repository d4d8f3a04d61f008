"""``python -m msta``."""

from msta.cli import main

main()
