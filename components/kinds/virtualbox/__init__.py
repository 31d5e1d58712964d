"""Oracle VirtualBox.

Its own files: `vboxmanage` (its command), `hardware` (a guest's settings in its words), `data` (a guest's
further disks).
"""
