"""The components: networks, guests, containers and nested hypervisors, the same at every depth."""
