"""200 clients at once, and 500 that are silent: no error, no leak, bounded memory.

``S4RAW_LOAD_SECONDS`` says how long the 200 go on.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import descriptors, rss, thread_count, wait_for
from fault_ring import fault_ring
from peer import Peer

from s4raw.ring import Topology

CLIENTS = 200
PROCESSES = 4
SECONDS = float(os.environ.get("S4RAW_LOAD_SECONDS", "20"))
MAX_RSS = 300 << 20  # bytes of a server under load
IDLE = 500
MAX_IDLE_RSS = 100 << 10  # bytes of a server for each idle connection
KIB, MIB = 1 << 10, 1 << 20


def start_load(ring, number: int) -> "subprocess.Popen[bytes]":
    program = Path(__file__).with_name("load.py")
    arguments = [ring.conf, str(CLIENTS // PROCESSES), str(SECONDS), f"p{number}"]
    process = subprocess.Popen([sys.executable, str(program), *arguments], stdout=subprocess.PIPE)
    ring.clients.append(process)
    return process


@pytest.mark.long
@pytest.mark.timeout(SECONDS + 120)
def test_200_clients_at_work_meet_no_error_and_the_servers_stay_bounded(tmp_path, capsys):
    with fault_ring(tmp_path, count=3) as ring:
        pids = [process.pid for process in ring.processes]
        before = [rss(pid) for pid in pids]
        loads = [start_load(ring, number) for number in range(PROCESSES)]
        most = {"rss": 0, "threads": 0, "descriptors": 0}
        while any(load.poll() is None for load in loads):
            for pid in pids:
                now = {"rss": rss(pid), "threads": thread_count(pid), "descriptors": len(descriptors(pid))}
                most = {name: max(most[name], now[name]) for name in most}
            time.sleep(0.2)
        results = [json.loads(load.stdout.read()) for load in loads]
        with capsys.disabled():
            print(
                f"\n{CLIENTS} clients, {SECONDS:g} s: {sum(result['operations'] for result in results)} operations, "
                f"the least busy client {min(result['least'] for result in results)}; a server had at most "
                f"{most['threads']} threads, {most['descriptors']} descriptors and {most['rss'] / MIB:.0f} MiB, "
                f"{max(before) / MIB:.0f} MiB before and {max(map(rss, pids)) / MIB:.0f} MiB after"
            )
        assert not [error for result in results for error in result["errors"]]
        assert most["rss"] < MAX_RSS
        assert ring.published() == []


def test_an_idle_connection_costs_little(tmp_path, capsys):
    with fault_ring(tmp_path) as ring:
        pid, topology = ring.processes[0].pid, Topology(tuple(ring.servers))
        peers = [Peer.greeted(ring.servers[0], topology) for _ in range(10)]  # what is paid once
        before = rss(pid)
        peers += [Peer.greeted(ring.servers[0], topology) for _ in range(IDLE)]
        wait_for(lambda: thread_count(pid) == 1 + len(peers), "all connections to be served")
        each = (rss(pid) - before) / IDLE
        with capsys.disabled():
            print(f"\n{IDLE} idle connections cost the server {each / KIB:.1f} KiB each")
        for peer in peers:
            peer.close()
        assert each < MAX_IDLE_RSS
