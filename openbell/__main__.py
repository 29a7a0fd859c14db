"""`python -m openbell` is `openbell`."""

from openbell.cli import main

main()
