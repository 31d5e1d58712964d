"""One module for each hypervisor that is driven by its own commands; see `components.remote.guests`."""
