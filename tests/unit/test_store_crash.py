"""The store when it is killed, and when its disk is full."""

import os
import random

import pytest
from support import get, left_over, names, opened, run_task, run_task_on, start_task
from tasks import content_of

from s4raw.keys import Key


def publish_until_killed(root, run, lines):
    """Let a child publish keys, and kill it after so many lines of its report; what it has reported."""
    with start_task("publish_forever", root, run) as child:
        try:
            report = b"".join(child.stdout.readline() for _ in range(lines))
        finally:
            child.kill()
        report += child.stdout.read()
    assert child.returncode == -9
    return [line.split() for line in report.decode().splitlines()]


def acknowledged(report):
    """What must be there according to a report, and the name whose last step may have happened or not."""
    there, open_step = set(), None
    for verb, name in report:
        if verb == "done":
            (there.add if open_step == ("put", name) else there.discard)(name)
            open_step = None
        else:
            open_step = (verb, name)
    return there, open_step[1] if open_step else None


def test_a_killed_server_leaves_every_key_whole_and_nothing_else(tmp_path):
    dice, there, unsure = random.Random(), set(), set()
    for run in range(12):
        report = publish_until_killed(tmp_path, f"run{run}", dice.randrange(1, 200))
        added, unknown = acknowledged(report)
        there |= added
        unsure.add(unknown)
        with opened(tmp_path) as store:
            assert not left_over(tmp_path)
            found = set(names(store))
            assert there - unsure <= found <= there | unsure
            for name in found:
                assert get(store, Key("b", name)) == content_of(name), name
            there, unsure = found, set()
    with opened(tmp_path) as store:
        assert store.remove_prefix(Key("b", "")) == len(there)
    assert not [name for _, _, files in os.walk(tmp_path) for name in files if not name.startswith("_")]


def test_a_file_that_outgrows_what_the_process_may_write_is_no_key(tmp_path):
    run_task("outgrow_the_file_size_limit", tmp_path / "data")


def test_a_full_disk_is_told_and_leaves_no_partial_key(tmp_path):
    run_task_on("tmpfs", "size=2m", "fill", tmp_path / "mount")


@pytest.mark.parametrize("inodes", range(20, 26))
def test_a_disk_without_inodes_is_told_and_leaves_no_partial_key(tmp_path, inodes):
    run_task_on("tmpfs", f"size=2m,nr_inodes={inodes}", "run_out_of_inodes", tmp_path / "mount")


def test_a_put_that_fails_leaves_no_directory(tmp_path):
    run_task_on("tmpfs", "size=2m,nr_inodes=30", "run_out_of_inodes_in_mid_path", tmp_path / "mount")
