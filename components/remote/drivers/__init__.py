"""One module for each hypervisor that is driven by its own commands; see `components.remote.driver`.

Each holds ``DRIVERS``: what it makes ("network", "medium", "guest", "container") and the driver of it.
"""
