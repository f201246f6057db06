"""The queue when its process is killed, and when its disk is full: what was accepted is there, in its order."""

import os
import random
import subprocess
import sys
from pathlib import Path

from queue_support import opened
from queue_tasks import content_of
from support import run_task_on

TASKS = Path(__file__).parent / "queue_tasks.py"


def run_until_killed(task, directory, run, lines):
    """Let a child queue things, and kill it after so many lines of its report; what it has reported."""
    command = [sys.executable, str(TASKS), task, str(directory), str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        try:
            report = b"".join(child.stdout.readline() for _ in range(lines))
        finally:
            child.kill()
        report += child.stdout.read()
    assert child.returncode == -9
    return [(name, int(number)) for name, number in (line.split() for line in report.decode().splitlines())]


def test_what_was_accepted_is_there_after_kill_9_with_its_file(tmp_path):
    accepted = []
    for run in range(6):
        accepted += run_until_killed("accept_forever", tmp_path, run, random.randrange(1, 150))
        with opened(tmp_path / "q") as queue:
            entries = queue.entries(limit=10**6)
            numbers = {}
            for entry in entries:
                with open(entry.order.path, "rb") as file:
                    content = file.read()
                name = entry.order.key.name
                number = int(content.split()[0])
                assert content == content_of(name, number)
                assert numbers.get(name, [-1])[-1] < number, "in the order in which they were accepted"
                numbers.setdefault(name, []).append(number)
            for name, number in accepted:
                assert number in numbers[name]
            assert len(entries) <= len(accepted) + 4 * (run + 1), "at most one of each thread was not reported"
            assert len(queue.spool.names()) == sum(entry.order.spooled for entry in entries)


def test_what_was_accepted_arrives_in_order_although_it_is_killed_again_and_again(tmp_path):
    accepted = []
    for run in range(10):
        accepted += run_until_killed("push_forever", tmp_path, run * 1_000_000, random.randrange(1, 200))
    done = subprocess.run([sys.executable, str(TASKS), "push_all", str(tmp_path)], timeout=100, check=False)
    assert done.returncode == 0
    arrived: dict[str, list[int]] = {}
    for line in (tmp_path / "arrived").read_text().splitlines():
        number, name = line.split()
        arrived.setdefault(name, []).append(int(number))
    for name, numbers in arrived.items():
        assert numbers == sorted(numbers), f"{name} went back"
    for name, number in accepted:
        assert number in arrived[name]
    twice = sum(len(numbers) - len(set(numbers)) for numbers in arrived.values())
    assert twice <= 10 * 4, "only what was in flight arrives twice"


def test_a_full_disk_is_told_and_delivering_makes_room(tmp_path):
    run_task_on("tmpfs", "size=8m", "fill", tmp_path / "mount", TASKS)


def test_a_disk_without_room_for_the_database_delivers_and_goes_on_later(tmp_path):
    run_task_on("tmpfs", "size=8m", "fill_with_rows", tmp_path / "mount", TASKS)


def test_a_queue_leaves_no_more_than_its_files(tmp_path):
    with opened(tmp_path / "q"):
        pass
    assert sorted(os.listdir(tmp_path / "q")) == ["lock", "queue.db", "reserve", "spool"]
