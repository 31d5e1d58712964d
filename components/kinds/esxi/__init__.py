"""VMware ESXi.

Its own files: `esxcli` (its switches and port groups), `vimcmd` (its guests), `vmx` (a guest's
settings as its file has them), `names` (whose things are).
"""
