"""How long a download may take, and how large it may be: for vimectl's own client and, as to size, for uv.

There is no limit on the time of a download that makes progress. A server may keep a command waiting for
``WAIT_SECONDS``, and for one second more for each ``MIN_RATE`` bytes that it sends.
"""

from __future__ import annotations

WAIT_SECONDS = 60.0
MIN_RATE = 16 * 1024
# More than any wheel has. Without a stated size a smaller limit applies: such a file may have no end.
MAX_FILE_BYTES = 8 * 1024**3
MAX_UNSTATED_BYTES = 256 * 1024**2
