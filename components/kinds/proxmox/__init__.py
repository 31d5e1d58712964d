"""Proxmox VE, nested and as the outer host.

Its own files: `api` (its HTTP API), `machine` (a machine in the provider's words), `numbers` (the
numbers of guests), `seed` (the drive of a guest's seed), `data` (a guest's disks), `uploads` (what
is uploaded, and under which ending).
"""
