"""Ports for the servers that tests start."""

import random

from nfctl.service import first_free

# Where neither the kernel nor the service under test takes one; and none is given twice, though its server, or one
# that is started again, may take seconds to come.
_LEFT = iter(random.sample(range(10_000, 20_000), 10_000))


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses, another each time."""
    return first_free(_LEFT)
