"""VMware Workstation.

Its own files: `vmrun` (its command), `vmx` (a guest's settings as its file has them), `networking`
(its networks' settings), `names` (what it takes as a name), `data` (a guest's further disks).
"""
