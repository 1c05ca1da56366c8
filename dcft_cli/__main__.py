"""`python -m dcft_cli`."""

from dcft_cli.cli import main

main()
