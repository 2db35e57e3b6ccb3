"""`python -m faults`: every fault many times, and a table of what became of it."""

import argparse
import shutil
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from faults.local import FAULTS
from faults.report import Row, table
from faults.trial import Fault, Verdict, run_trial

from nfctl import tools


def main() -> int:
    """Run the trials and print the table; returns 1 when one was not clean."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="trials of each fault")
    parser.add_argument("--jobs", type=int, default=2, help="trials at once")
    parser.add_argument("--only", default="", help="only faults with this in their names")
    parser.add_argument("--keep", action="store_true", help="keep the files of clean trials too")
    parser.add_argument("--seed", default=str(int(time.time())), help="what the random moments come from")
    arguments = parser.parse_args()
    nextflow = tools.nextflow(print)
    root = Path(tempfile.mkdtemp(prefix="faults-"))
    print(f"Seed {arguments.seed}; files of trials that are not clean stay in {root}.", flush=True)
    chosen = [fault for fault in FAULTS if arguments.only in fault.name]
    rows = [Row(fault.name) for fault in chosen]

    def trial(fault: Fault, number: int) -> Verdict:
        directory = root / f"{FAULTS.index(fault)}-{number}"
        directory.mkdir()
        try:
            verdict = run_trial(fault, nextflow, directory, f"{arguments.seed} {fault.name} {number}")
        except BaseException as error:  # a trial that cannot be judged is one that went wrong
            verdict = Verdict(wrong=[f"{type(error).__name__}: {error}"])
        if verdict.clean and not arguments.keep:
            shutil.rmtree(directory)
        return verdict

    with ThreadPoolExecutor(arguments.jobs) as pool:
        futures: list[tuple[Row, int, Future[Verdict]]] = [
            (row, number, pool.submit(trial, fault, number))
            for row, fault in zip(rows, chosen, strict=True)
            for number in range(arguments.times)
        ]
        for row, number, future in futures:
            verdict = future.result()
            row.verdicts.append(verdict)
            print(f"{row.name} {number}: {verdict}", flush=True)
    print(f"\n{table(rows)}")
    return 0 if all(verdict.clean for row in rows for verdict in row.verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
