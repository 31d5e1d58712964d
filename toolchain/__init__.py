"""What prepares a machine before the first ``pulumi up``: programs, Python environment, host, image.

Everything here runs before the project's virtual environment exists, so it imports the standard
library only. The one exception is ``langhost.py``, which the engine starts inside that environment.
"""
