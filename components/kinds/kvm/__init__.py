"""Nested KVM: a Debian host with libvirt, and LXC beside it."""
