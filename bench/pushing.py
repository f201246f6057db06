"""The client's end of uploads: boto3 from threads, processes of ``send.py``, and clients that hand over to the queue.

Each function that returns an action is a target of ``bench.worker``.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from bench.lab import CHECKOUT
from bench.worker import Action, Found

SEND = CHECKOUT / "s4raw" / "send.py"
SECONDS = 600.0  # that anything may take
WARM_SIZE = 1024


def boto(endpoint: str, bucket: str, files: Mapping[str, str], threads: int, keys: Mapping[str, str]) -> Action:
    """Put files (paths by name) from threads that share one client, each of which has used its connection before."""
    import boto3
    from botocore.config import Config

    config = Config(max_pool_connections=threads, s3={"addressing_style": "path"}, read_timeout=SECONDS)
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=keys["AWS_REGION"],
        aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
        config=config,
    )
    pool = ThreadPoolExecutor(threads)

    def warm(number: int) -> None:
        client.put_object(Bucket=bucket, Key=f"warm/{number}", Body=bytes(WARM_SIZE))

    def run(prefix: str, warming: bool = False) -> None:
        if warming:
            list(pool.map(warm, range(threads)))
            return

        def put(name: str) -> None:
            with open(files[name], "rb") as file:
                client.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=file)

        list(pool.map(put, files))

    return run


def senders(bucket: str, nodes: Sequence[Mapping[str, str]], env: Mapping[str, str], options: Sequence[str]) -> Action:
    """A process of ``send.py`` for each node, all at once, each with the node's files (paths by name)."""
    environment = {**os.environ, **env}
    command = [sys.executable, str(SEND), *options, "-"]

    def run(prefix: str) -> None:
        processes = []
        for files in nodes:
            stdin = tempfile.TemporaryFile()
            stdin.write("".join(f"{path} remote/{bucket}/{prefix}/{name}\n" for name, path in files.items()).encode())
            stdin.seek(0)
            with stdin:
                process = subprocess.Popen(command, stdin=stdin, stderr=subprocess.PIPE, env=environment)
            processes.append(process)
        errors = []
        for process in processes:
            assert process.stderr
            with process:
                errors.append(process.stderr.read().decode(errors="replace"))
            if process.returncode:
                raise RuntimeError(f"send.py exited with {process.returncode}: {errors[-1][:2000]}")

    return measured(run)


def measured(run: Action) -> Action:
    """An action whose CPU seconds are those of the processes that it starts, too."""

    def whole(**arguments: object) -> Found:
        before = os.times()
        run(**arguments)
        after = os.times()
        return {"cpu": sum(after[:4]) - sum(before[:4])}

    return whole


def queued(
    port: int, connections: int, count: int, directory: str, files: int, bucket: str, share: int, snapshot: bool
) -> Action:
    """Hand over ``count`` files of a directory, named by number, on connections that wait for each answer.

    Answers with the seconds of each, in ``latencies``. ``share`` sets those apart that do the same at the same time.
    """
    socks = [socket.create_connection(("127.0.0.1", port), SECONDS) for _ in range(connections)]
    selector = selectors.DefaultSelector()
    for sock in socks:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(sock, selectors.EVENT_READ)

    def order(turn: int, number: int) -> bytes:
        to = f"remote/{bucket}/queued{turn}/{share}/{number}"
        path = os.path.join(directory, f"{number % files:04}")
        return json.dumps({"file": path, "to": to, "ack": "queued", "snapshot": snapshot}).encode() + b"\n"

    def run(turn: int) -> Found:
        orders = iter([order(turn, number) for number in range(count)])
        sent: dict[socket.socket, float] = {}
        latencies = []
        for sock, line in zip(socks, orders, strict=False):
            sent[sock] = time.perf_counter()
            sock.sendall(line)
        while sent:
            for key, _ in selector.select():
                sock = key.fileobj  # type: ignore[assignment]
                answer = sock.recv(64 << 10)
                if not answer.startswith(b'{"ok": true') and not json.loads(answer or b"{}").get("ok"):
                    raise RuntimeError(f"not queued: {answer!r}")
                now = time.perf_counter()
                latencies.append(now - sent.pop(sock))
                if line := next(orders, b""):
                    sent[sock] = now
                    sock.sendall(line)
        return {"latencies": latencies}

    return run


def ask(port: int, **order: object) -> Mapping[str, object]:
    """What the push daemon on a port answers to one order. Raises RuntimeError when it is not fine."""
    with socket.create_connection(("127.0.0.1", port), SECONDS) as sock:
        sock.sendall(json.dumps(order).encode() + b"\n")
        with sock.makefile("rb") as file:
            answer = json.loads(file.readline() or b"{}")
    if not isinstance(answer, dict) or not answer.get("ok"):
        raise RuntimeError(f"{order}: {answer}")
    return answer


def opening(directory: str, count: int) -> Action:
    """Open a queue that has so many entries."""
    from s4raw.queue.queue import Queue

    def run() -> Found:
        started = time.perf_counter()
        queue = Queue(directory)
        seconds = time.perf_counter() - started
        entries = queue.gauges().entries
        queue.close()
        if entries != count:
            raise RuntimeError(f"{entries} entries instead of {count}")
        return {"seconds": seconds}

    return run
