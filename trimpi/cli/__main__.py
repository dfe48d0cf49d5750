"""`python -m trimpi.cli`."""

from trimpi.cli import main

main()
