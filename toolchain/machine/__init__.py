"""This machine: its packages, libvirt and its daemons, processes."""
