"""
The same application as ``twistd lonc``, from a file: ``twistd -ny tap/lonc.tac``.

Its options are in the environment: ``LONC_OPTIONS="--standalone var" twistd -ny tap/lonc.tac``.
Without options it reads the web server's ``loncapa.conf``, as ``twistd lonc`` does.
"""

import os
import shlex

from twisted.application.service import Application
from twisted.python.usage import UsageError

from lonc.tap import Options, makeService

options = Options()
try:
    options.parseOptions(shlex.split(os.environ.get("LONC_OPTIONS", "")))
except UsageError as error:
    raise SystemExit(f"LONC_OPTIONS: {error}") from None
application = Application("lonc")
makeService(options).setServiceParent(application)
