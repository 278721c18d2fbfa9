"""`python -m node` is the command `mediqa`."""

from node.cli import main

main()
