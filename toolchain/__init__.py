"""What prepares a machine before the first `pulumi up`: programs, Python environment, host, image.

Everything here runs before the project's virtual environment exists, so it imports the standard
library only. The exceptions are what the engine starts inside that environment (``langhost``,
``dynhost`` and what they import) and ``recover``.

Where a change goes: versions in ``pins``; building and finding the engine in ``build``, ``golang``,
``python_env``, ``wrapper``, ``environment``; Debian packages and libvirt's daemons in ``host``,
``packages``, ``daemons``; the golden image in ``image``, ``image/`` and ``golden``; checks and the
KVM verdict in ``doctor/``; `make up`, `down`, `show`, `enter` in ``lab``; tests in ``testing``.
"""
