"""`python -m hf_elhsr.cli` is `hf-elhsr`."""

from .app import main

main()
