"""The joints between layers: resources that look at the real thing on every diff, and mend it.

pulumi-libvirt only knows what it did. A gate knows what is: each `pulumi preview` and `pulumi up`
looks whether a network is up, a domain is defined and runs, a nested hypervisor answers. If not, the
gate "changes": preview says so, what depends on it is unknown until `up` has mended it.
"""
