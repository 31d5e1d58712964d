"""Gates of Proxmox VE: what pulumi-proxmoxve made, looked at through the API on every diff."""
