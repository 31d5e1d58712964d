"""Two labs in one stack: a KVM host with a container in it, and a network beside it."""

import pulumi

from nestlab import (
    BridgedNetwork,
    ContainerArgs,
    ContainerFromTemplate,
    KvmArgs,
    Lab,
    NestedHypervisorLab,
    NetworkArgs,
)

config = pulumi.Config()
name, greeting = config.require("lab-name"), config.require_secret("greeting")

lab = Lab(f"{name}-a")
# In whatever order: the network of the host comes after it, and that of the container too.
host = NestedHypervisorLab("kvm1", KvmArgs(kind="kvm", memory_mib=2048, network="lan"), on=lab)
box = ContainerFromTemplate(
    "box",
    ContainerArgs(
        template="busybox",
        memory_mib=config.require_int("memory"),
        network="inner",
        command=[
            "/bin/sh",
            "-c",
            pulumi.Output.format("echo {0} > /greeting; exec /sbin/init", greeting),
        ],
    ),
    on=host,
)
BridgedNetwork("inner", NetworkArgs(subnet=config.require("inner-subnet")), on=host)
BridgedNetwork("lan", NetworkArgs(subnet=config.require("lan-subnet")), on=lab)

other = Lab(f"{name}-b")
BridgedNetwork("lan", NetworkArgs(mode="isolated", subnet=config.require("other-subnet")), on=other)

pulumi.export("host", host.address)
pulumi.export("box", box.address)
pulumi.export("sheet", lab.sheet)
pulumi.export("key", lab.key)
