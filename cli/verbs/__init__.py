"""The verbs of the command `nestlab`, each a file with ``command``; its first line is what `--help` says."""
