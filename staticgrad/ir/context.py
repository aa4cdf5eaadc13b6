"""The context that a unit is called with: which of its 64-bit words holds what."""

CODE, NODE, INDEX = range(3)
"""The first failure: its code (0: none), the node, and the element."""

WORK_LEFT = 3
"""How many nanoseconds of work are left to do before `POLL` is called."""

PARALLEL_FOR, SLOTS = 4, 5
"""The address of what runs the blocks of parallel kernels, 0 for none, and how many of them may run at once."""

POLL = 7
"""The address of what notes a failure where the caller wants an end, 0 for none."""

CONTEXT_WORDS = 8
"""So many words there are; word 6 is the caller's own."""
