"""Xen with xl.

Its own files: `xl` (its command, and files of dom0).
"""
