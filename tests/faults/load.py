"""Many clients at once, as a process of its own: ``python load.py CONF CLIENTS SECONDS NAME`` prints what they did.

Each client is a thread with a ``Ring`` of its own. It puts, gets, lists and deletes its own keys and checks what comes.
"""

import json
import random
import sys
import threading
import time
import traceback

from s4raw.client import Ring
from s4raw.errors import KeyExists, NoSuchKey
from s4raw.keys import Key

SIZES = (0, 1, 1000, 10_000, 100_000, 300_000)
KEYS = 4


def one_round(ring: Ring, directory: Key, source: random.Random) -> int:
    """Put a few keys, read them back, list them, delete them; returns the number of operations."""
    contents = {f"{number}_k": source.randbytes(source.choice(SIZES)) for number in range(KEYS)}
    for name, content in contents.items():
        ring.put(directory.join(name), content)
    for name, content in contents.items():
        assert ring.get(directory.join(name)) == content, "another content"
    found = {entry.name.rpartition("/")[2]: entry.size for entry in ring.list(directory, recursive=True)}
    assert found == {name: len(content) for name, content in contents.items()}, found
    refused(KeyExists, lambda: ring.put(directory.join("0_k"), b"again"))
    for name in contents:
        ring.remove(directory.join(name))
    assert not list(ring.list(directory, recursive=True)), "a deleted key is listed"
    refused(NoSuchKey, lambda: ring.get(directory.join("0_k")))
    return 3 * KEYS + 4


def refused(kind, action) -> None:
    try:
        action()
    except kind:
        return
    raise AssertionError(f"no {kind.__name__}")


def main(conf: str, clients: int, seconds: float, name: str) -> None:
    """Run the clients until the time is up, each for one round at least."""
    deadline = time.monotonic() + seconds
    counts, errors = [0] * clients, []

    def run(number: int) -> None:
        source = random.Random(f"{name}-{number}")
        try:
            with Ring.from_conf(conf) as ring:
                while not counts[number] or time.monotonic() < deadline:
                    counts[number] += one_round(ring, Key("load", f"{name}/{number}/"), source)
        except BaseException:
            errors.append(traceback.format_exc())

    threads = [threading.Thread(target=run, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    json.dump({"operations": sum(counts), "least": min(counts), "errors": errors[:3]}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
