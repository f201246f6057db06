"""What the kernel says of a process: CPU seconds and memory. Light, because every worker imports it."""

from __future__ import annotations

import os
from contextlib import suppress

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of the children it has waited for, in steps of 10 ms."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        words = file.read().rpartition(")")[2].split()
    return sum(map(int, words[11:15])) / TICKS


def children(pid: int) -> list[int]:
    """The process ids of a process's children."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(child) for child in file.read().split()]


def memory_kib(pid: int | str, field: str, file: str = "status") -> int:
    """A memory field of ``/proc/PID/status``: VmHWM (peak), VmRSS (resident), VmPTE (page tables). In KiB.

    In ``smaps_rollup`` there is Pss: what is resident, a page that several processes share divided by their number.
    """
    with open(f"/proc/{pid}/{file}", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith(f"{field}:"):
                return int(line.split()[1])
    raise KeyError(field)


def reset_peak(pid: int | str) -> None:
    """Let VmHWM begin again at what is resident now."""
    with suppress(OSError), open(f"/proc/{pid}/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
