"""A guest on a network, by two of nestlab's components."""

import pulumi

from nestlab import BridgedNetwork, GuestArgs, GuestFromIso, Lab, LabArgs, NetworkArgs

config = pulumi.Config()
lab = Lab(config.require("lab-name"), LabArgs(media={"ipxe": {"path": "/usr/lib/ipxe/ipxe.iso"}}))
lan = BridgedNetwork("lan", NetworkArgs(subnet=config.require("subnet")), on=lab)
guest = GuestFromIso(
    "web",
    GuestArgs(
        iso="ipxe",
        network="lan",
        memory_mib=config.require_int("memory"),
        ready={"reset_s": 60},
    ),
    on=lab,
)
pulumi.export("subnet", lan.subnet)
pulumi.export("address", guest.address)
pulumi.export("console", guest.console)
pulumi.export("password", guest.password)
