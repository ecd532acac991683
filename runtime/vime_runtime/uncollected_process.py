"""What a process runs first that ``importing.children_uncollected`` is around the start of."""

import gc

gc.disable()
