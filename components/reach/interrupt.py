"""The one way a long wait learns that it should end.

It leaves out who tells it: the project's own dynamic host (``toolchain/engine/dynhost.py``) does, when the
engine asks its providers to stop. Under the official host nobody does, and the event stays unset.
"""

import threading

CANCELLED = threading.Event()
"""Set once the engine asked its providers to stop. Long waits use ``CANCELLED.wait(seconds)``
instead of sleeping, and give up when it returns true."""
