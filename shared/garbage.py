"""How seldom a process looks for garbage in cycles."""

import gc

# A request, or a look at a log, makes some thousands and hardly any cycle: looking through lines for some took a fourth
# of the worker's time (by hand). What does make cycles, an error with its traceback, is seldom, and holds a connection
# at the most.
_OBJECTS_BETWEEN_COLLECTIONS = 10_000


def look_seldom() -> None:
    """From now on look only at what comes, and not often: what is there stays for ever. For once, after a fork.

    It is not looked at even now: that would write to each object, and what a process shares with its parent would be
    its own, 8 to 10 MiB of it.
    """
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
