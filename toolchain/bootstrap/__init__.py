"""What works on a bare Python: where things are, the shared cache, programs run, the Python environment.

Standard library alone.
"""
