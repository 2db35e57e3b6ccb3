"""Sizes: how much is measured."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """As a report has them: about two hours on two processors, and 4 GiB of memory for ten million lines in Redis.

    `rounds` is how often a measurement and what stands beside it take turns, `trials` the same where one takes half a
    minute and more: of many sockets, and of the longest run. `seconds` is how long a steady load or an idle time is
    watched, `queue` how many runs wait in the end, and `crowds` how many watch while others call or join. The other
    tuples are the sizes along each curve; `rates` are frames a second.
    """

    rounds: int = 3
    trials: int = 2
    seconds: int = 10
    queue: int = 10_000
    viewers: int = 1_000
    crowds: tuple[int, ...] = (1_000, 10_000)
    sockets: tuple[int, ...] = (10, 100, 1_000, 5_000, 10_000)
    rates: tuple[int, ...] = (5, 10, 50)
    lines: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
    history: tuple[int, ...] = (1, 10, 100, 1_000, 10_000)
    processes: tuple[int, ...] = (1, 2, 3, 4)


SMALL = Sizes(
    rounds=1,
    trials=1,
    seconds=3,
    queue=400,
    viewers=50,
    crowds=(50,),
    sockets=(10, 50),
    rates=(10,),
    lines=(1_000, 10_000),
    history=(1, 100),
    processes=(1, 2),
)
"""To see that every part works."""
