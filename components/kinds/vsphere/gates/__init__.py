"""Gates of vSphere: what pulumi-vsphere made, looked at through the API on every diff."""
