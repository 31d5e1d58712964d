"""Gates that look at libvirt's networks, domains and pools."""
