"""`python -m midgrain`."""

from midgrain.cli import main

main()
