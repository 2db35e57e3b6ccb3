"""Where samples of `perf` are said to lie."""

from bench.places import PLACES, stacks

_TOLD = """\
 4711
\tffffffff816c6417 loopback_xmit+0x10 ([kernel.kallsyms])
\tffffffff816c6418 net_rx_action ([kernel.kallsyms])
\tffffffff816b975a ksys_write ([kernel.kallsyms])
\t           f82ad write (/usr/lib/x86_64-linux-gnu/libc.so.6)
\t               0 [unknown] ([unknown])

 4711
\t           fc25a _PyEval_EvalFrameDefault (/opt/lib/libpython3.11.so.1.0)
\t    7f166a6129c0 [unknown] ([unknown])

 4712
\t           fc25a gevent_call (/opt/site-packages/gevent/libev/corecext.so)
""".splitlines()


def test_a_sample_lies_where_it_was_taken() -> None:
    """A frame a line and an empty line after each sample; the kernel's frames tell what it was asked for."""
    told = list(stacks(_TOLD))
    assert [pid for pid, _ in told] == [4711, 4711, 4712]
    found = [stack for _, stack in told]
    assert [len(stack) for stack in found] == [5, 2, 1]
    names = [[place.name.split(" (")[0] for place in PLACES if place.here(stack)] for stack in found]
    assert names == [
        [
            "in the kernel",
            "… in writing to a socket or a file",
            "… of that, handing the bytes to the socket that receives them",
        ],
        ["Python's interpreter and objects", "… evaluating bytecode"],
        ["gevent and its loop"],
    ]
