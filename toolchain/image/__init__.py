"""The golden images of nested hosts: made, booted once, and put where libvirt reaches them."""
