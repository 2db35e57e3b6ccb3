"""`python -m nfctl`."""

from nfctl.cli import main

main()
