"""Appliances: guests of a golden image of their own that play an installed product, for whole stacks.

One small Debian, `image`; as vendors' ISOs it boots an installer, as a cloud image itself. Inside,
`main` finds the answers as the product's installer does (`answers`), takes address, host key and password
from them, keeps them on its disk, and serves the product's stub commands behind a real sshd. What an
appliance is not: a hypervisor. What it says to run lives in its stub's state.
"""
