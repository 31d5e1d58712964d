"""libvirt with QEMU, on the outer host and in nested KVM and Xen hosts.

Its own files: `virsh` (its commands), `census` (what it has, at one look), `ownership` (whose
things are), `domain` (a machine in the provider's words), `domain_xml` (what the provider can't
say), `reached` (whether another machine's can be asked), `cloned` (nested hosts that are clones of a golden image), `seed` (what these are told),
`volumes` (what the provider is told of a seed and of files of this machine),
`leftovers` (of a killed run, out of the way of what is made), `snapshots` (of domains that run,
and back), `lease` (a probe: the planned address was taken), `firewall` (whether its NAT is in force),
`routes` (who has a network's range already),
`uplink` (how a network of the outer host reaches outside).
"""
