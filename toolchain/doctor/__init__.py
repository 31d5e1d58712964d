"""Whether this machine can run nested labs, and what to mend: `make doctor`.

`command` draws the table, `verdict` decides between KVM and emulation and remembers it for the stack
loader; the other modules each look at one thing. Nothing is taken at its word: guests are booted.
"""
