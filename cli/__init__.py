"""The command `nestlab`: one file for each verb (`cli.verbs`), one way in, one printer of errors."""
