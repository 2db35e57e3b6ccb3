"""Sizes: how much is measured."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """As a report has them: about half an hour on two processors.

    `rounds` is how often a measurement and what stands beside it take turns, `trials` the same along the curves of
    sockets and of the processes that hold them, where each takes half a minute. `seconds` is how long a steady load or
    an idle time is watched, `queue` how many runs wait in the end. The tuples are the sizes along each curve.
    """

    rounds: int = 3
    trials: int = 1
    seconds: int = 10
    queue: int = 10_000
    viewers: int = 1_000
    sockets: tuple[int, ...] = (10, 100, 1_000, 10_000)
    lines: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    history: tuple[int, ...] = (1, 10, 100, 1_000, 10_000)
    processes: tuple[int, ...] = (1, 2, 3, 4)


SMALL = Sizes(
    rounds=1,
    seconds=3,
    queue=400,
    viewers=50,
    sockets=(10, 50),
    lines=(1_000, 10_000),
    history=(1, 100),
    processes=(1, 2),
)
"""To see that every part works."""
