"""``push report``: what it makes of the logs of s3daemon and of our own daemon."""

import gzip
import json
import random
import struct
import subprocess
import sys
import tracemalloc
from array import array
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4raw import arguments
from s4raw.errors import ConfError, LocalFileError, UsageError
from s4raw.push import report as reports
from s4raw.verbs import push_client

OLD = """\
INFO 2025-02-13 21:31:10,002 __main__ - Starting server
INFO 2025-02-13 21:31:13,377 __main__ - 1739482272.123456 1.250000 sec - /data/MC_O_20250213_000001_R22_S11.fits
INFO 2025-02-13 21:31:15,377 __main__ - 1739482272.123456 3.250000 sec - /data/MC_O_20250213_000001_R22_S12.fits
ERROR 2025-02-13 21:31:19,377 __main__ - 1739482278.123456 1.000000 sec - /data/MC_O_20250213_000002_R22_S11.fits
Traceback (most recent call last):
  File "s3daemon.py", line 78, in handle_client
    await client.put_object(Body=f, Bucket=bucket, Key=key)
botocore.exceptions.EndpointConnectionError: Could not connect to the endpoint URL: "https://s3.example.org/b/k"
INFO 2025-02-13 21:31:22,377 __main__ - 1739482274.123456 8.000000 sec - /data/MC_O_20250213_000003_R22_S11.fits
"""
NEW = """\
INFO 2026-03-01 02:00:00,500 s4raw.push - 1772330400.000000 0.500000 sec - bucket/a - 9.0 9.0 sec - key
INFO 2026-03-01 02:00:01,500 s4raw.push - 1772330401.000000 0.500000 sec - bucket/b
ERROR 2026-03-01 02:00:03,000 s4raw.push - 1772330402.000000 1.000000 sec - bucket/c: 503 SlowDown
INFO 2026-03-01 02:00:04,000 s4raw.push - draining
what is this
"""


def run(verb, *words):
    """Call a verb of the family as the command line does; its exit code."""
    return push_client.VERBS[verb](arguments.parse(push_client.USAGE[verb], ["push", verb, *words], f"push {verb}"))


@pytest.fixture
def report(capsys):
    """Runs ``push report``; what it says as JSON, by host, and its stderr."""

    def call(*words):
        assert run("report", "--json", *map(str, words)) == 0
        shown = capsys.readouterr()
        return {line["host"]: line for line in map(json.loads, shown.out.splitlines())}, shown.err

    return call


def test_a_log_of_s3daemon_is_read(tmp_path, report):
    (tmp_path / "lsstcam-dc01-20250213.log").write_text(OLD)
    found, noise = report(tmp_path / "lsstcam-dc01-20250213.log")
    assert noise == ""
    assert list(found) == ["lsstcam-dc01", "all"]
    expected = {"count": 3, "failures": 1, "unreadable": 0, "p50": 3.25, "p99": 8.0, "max": 8.0, "over": 1}
    assert expected.items() <= found["all"].items()
    assert found["all"]["mean"] == pytest.approx(12.5 / 3)
    assert found["all"]["rate"] == pytest.approx(3 / 10), "from the first start to the last end"


def test_the_key_may_look_like_the_rest_of_the_line_and_what_cannot_be_read_is_counted(tmp_path, report):
    (tmp_path / "node7.log").write_text(NEW)
    found, noise = report(tmp_path / "node7.log")
    assert noise == "s4raw: 2 lines say nothing of an upload\n"
    assert {"count": 2, "failures": 1, "unreadable": 2, "max": 0.5}.items() <= found["node7"].items()


def test_hosts_are_told_apart_and_their_logs_put_together(tmp_path, report):
    for number, name in enumerate(("dc01-a.log", "dc01-b.log", "dc02-a.log")):
        text = f"INFO 2026-01-01 00:00:00,000 x - {100 + number}.0 {number + 1}.0 sec - k\n"
        (tmp_path / name).write_text(text)
    found, _ = report(*sorted(tmp_path.iterdir()))
    assert {host: line["count"] for host, line in found.items()} == {"dc01": 2, "dc02": 1, "all": 3}
    assert found["dc01"]["rate"] == pytest.approx(2 / 3)
    assert found["all"]["rate"] == pytest.approx(3 / 5)


@pytest.mark.parametrize(
    ("path", "host"),
    [
        ("logs/lsstcam-dc01-20250213.log", "lsstcam-dc01"),
        ("lsstcam-dc01-s3daemon-3.log.gz", "lsstcam-dc01"),
        ("node3.log", "node3"),
        ("node3.log.1", "node3"),
        ("a-b/archiver.log", "archiver"),
        ("archiver-2025-02-13.log", "archiver-2025-02-13"),
        ("push-log", "push-log"),
        (".log", ".log"),
    ],
)
def test_the_host_is_in_the_name_of_the_log(path, host):
    assert reports.host_of(path) == host


def test_a_pattern_says_where_the_host_is(tmp_path, report):
    for rack in ("r1", "r2"):
        (tmp_path / rack).mkdir()
        (tmp_path / rack / "push.log").write_text(NEW)
    found, _ = report("--host-pattern", r"/(r[0-9])/", *tmp_path.glob("*/push.log"))
    assert list(found) == ["r1", "r2", "all"]
    found, _ = report("--host-pattern", "r[0-9]/p|nowhere", *tmp_path.glob("*/push.log"))
    assert list(found) == ["r1/p", "r2/p", "all"]
    with pytest.raises(UsageError, match="no regular expression"):
        report("--host-pattern", "(", "x.log")


def test_a_host_that_is_called_all_is_not_taken_for_all(tmp_path, report):
    (tmp_path / "all.log").write_text(OLD)
    (tmp_path / "one1.log").write_text(OLD)
    found, _ = report(tmp_path / "all.log", tmp_path / "one1.log")
    assert {host: line["count"] for host, line in found.items()} == {"one1": 3, "host all": 3, "all": 6}


def test_the_requirement_can_be_set(tmp_path, report):
    (tmp_path / "a1.log").write_text(OLD)
    for requirement, over in (("8", 0), ("3.25", 1), ("1", 3)):
        found, _ = report("--requirement", requirement, tmp_path / "a1.log")
        assert found["all"]["over"] == over


def test_a_log_without_uploads_is_reported_as_that(tmp_path, report, capsys):
    (tmp_path / "a1.log").write_text("")
    found, _ = report(tmp_path / "a1.log")
    assert {"count": 0, "failures": 0, "mean": None, "p99": None, "rate": None, "over": 0}.items() <= found[
        "a1"
    ].items()
    assert run("report", str(tmp_path / "a1.log")) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["a1", "0", "0", *"-----", "0"]


def test_the_table_has_a_line_for_each_host_and_one_for_all(tmp_path, capsys):
    (tmp_path / "a1.log").write_text(OLD)
    assert run("report", str(tmp_path / "a1.log")) == 0
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert [[word.strip() for word in line if word] for line in lines] == [
        ["HOST", "FILES", "FAILED", "MEAN", "P50", "P99", "MAX", "RATE", "OVER 7 s"],
        ["a1", "3", "1", "4.17 s", "3.25 s", "8.00 s", "8.00 s", "0.30/s", "1"],
        ["all", "3", "1", "4.17 s", "3.25 s", "8.00 s", "8.00 s", "0.30/s", "1"],
    ]


def test_a_compressed_log_is_read_whatever_its_name(tmp_path, report):
    (tmp_path / "a1.log").write_bytes(gzip.compress(OLD.encode()))
    assert report(tmp_path / "a1.log")[0]["a1"]["count"] == 3


def test_a_log_that_cannot_be_read_is_named(tmp_path, report):
    whole = gzip.compress(OLD.encode() + random.Random(1).randbytes(10_000))
    (tmp_path / "cut.gz").write_bytes(whole[:5000])
    for place in (5, 300, 5000):
        (tmp_path / f"damaged{place}.gz").write_bytes(whole[: 2 * place] + b"\xff\0\xff" + whole[2 * place + 3 :])
    for name in ("none.log", "cut.gz", "damaged5.gz", "damaged300.gz", "damaged5000.gz", "."):
        with pytest.raises(LocalFileError, match=f"^log {tmp_path / name}: "):
            report(tmp_path / name)


def test_a_log_of_any_bytes_is_no_error(tmp_path, report):
    (tmp_path / "a1.log").write_bytes(b"\xff\0\n" + OLD.replace("/data/", "/\udcff/").encode(errors="surrogateescape"))
    found, _ = report(tmp_path / "a1.log")
    assert (found["a1"]["count"], found["a1"]["unreadable"]) == (3, 1)


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=200), st.sampled_from([0.0, 0.01, 0.5, 0.9, 0.99, 1.0]))
def test_a_percentile_is_the_nearest_rank_also_where_not_all_is_sorted(values, q):
    kept = reports._SORTED_AT_ONCE
    reports._SORTED_AT_ONCE = 8
    try:
        found = reports.quantile(array("d", values), q)
    finally:
        reports._SORTED_AT_ONCE = kept
    assert found == sorted(values)[max(ceil(q * len(values)), 1) - 1]


def test_a_long_log_takes_the_memory_of_its_numbers(tmp_path):
    count = 20_000
    lines = (
        f"INFO 2026-01-01 00:00:00,000 x - {number}.5 {number % 97}.25 sec - {'k' * 100}\n" for number in range(count)
    )
    (tmp_path / "a1.log").write_text("".join(lines))
    tracemalloc.start()
    try:
        [times] = reports.read([str(tmp_path / "a1.log")]).values()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(times.seconds) == count
    assert peak < count * 8 * 3 + (3 << 18)


def report_apart(*words):
    """``push report`` in a process of its own: matplotlib keeps its fonts open."""
    code = (
        "import sys; from s4raw import arguments; from s4raw.verbs import push_client as p;"
        "words = ['push', 'report', *sys.argv[1:]]; p.VERBS['report'](arguments.parse(p.USAGE['report'], words));"
        "print({'matplotlib', 'numpy'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_pictures_show_each_host_and_all_of_them(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "a1.log").write_text(OLD)
    (tmp_path / "b$1.log").write_text("")
    done = report_apart("--png", tmp_path / "new" / "pictures", tmp_path / "a1.log", tmp_path / "b$1.log")
    assert done.returncode == 0, done.stderr
    pictures = {path.name: path.read_bytes() for path in (tmp_path / "new" / "pictures").iterdir()}
    assert sorted(pictures) == ["a1.png", "all.png", "b%241.png"]
    for data in pictures.values():
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        assert struct.unpack(">II", data[16:24]) == (800, 450)
    assert pictures["a1.png"] != pictures["b%241.png"]


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "a1.log").write_text(OLD)
    (tmp_path / "file").touch()
    done = report_apart("--png", tmp_path / "file", tmp_path / "a1.log")
    assert f"LocalFileError: local file {tmp_path}/file" in done.stderr


def test_without_matplotlib_the_extra_is_named_and_numbers_are_there(tmp_path, capsys, monkeypatch):
    (tmp_path / "a1.log").write_text(OLD)
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfError, match=r"pip install 's4raw\[report\]'"):
        run("report", "--png", str(tmp_path / "p"), str(tmp_path / "a1.log"))
    assert "a1" in capsys.readouterr().out


def test_matplotlib_is_imported_for_pictures_only(tmp_path):
    (tmp_path / "a1.log").write_text(OLD)
    done = report_apart(tmp_path / "a1.log")
    assert done.stdout.endswith("set()\n"), done
