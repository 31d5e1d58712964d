"""The engine: found or built, its environment and Python hosts, its state, and what a killed run left."""
