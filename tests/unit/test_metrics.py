"""Prometheus's text: names, labels, numbers; counting from many threads."""

import threading

from s4raw.metrics import Counter, Gauge, Histogram, exposition


def test_the_text_is_what_prometheus_reads():
    counter = Counter("files_total", "Files,\nand \\ more.", "result", ("good", "bad"))
    counter.add(2, "good")
    counter.add(1, 'a "b"\\\n')
    plain = Counter("bytes_total", "Bytes.")
    plain.add(1.5)
    histogram = Histogram("seconds", "Seconds.", (0.5, 1.0))
    for number in (0.5, 0.6, 7.0, 0.25):
        histogram.observe(number)
    gauge = Gauge("up", "Whether.", 1, labels={"version": "1"})
    assert exposition([counter, plain, histogram, gauge]).decode() == (
        "# HELP files_total Files,\\nand \\\\ more.\n"
        "# TYPE files_total counter\n"
        'files_total{result="good"} 2\n'
        'files_total{result="bad"} 0\n'
        'files_total{result="a \\"b\\"\\\\\\n"} 1\n'
        "# HELP bytes_total Bytes.\n"
        "# TYPE bytes_total counter\n"
        "bytes_total 1.5\n"
        "# HELP seconds Seconds.\n"
        "# TYPE seconds histogram\n"
        'seconds_bucket{le="0.5"} 2\n'
        'seconds_bucket{le="1"} 3\n'
        'seconds_bucket{le="+Inf"} 4\n'
        "seconds_sum 8.35\n"
        "seconds_count 4\n"
        "# HELP up Whether.\n"
        "# TYPE up gauge\n"
        'up{version="1"} 1\n'
    )


def test_nothing_is_lost_between_threads():
    counter, histogram = Counter("c", "C."), Histogram("h", "H.")

    def count():
        for _ in range(1000):
            counter.add()
            histogram.observe(0.1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [number for _, _, number in counter.samples()] == [4000]
    assert [number for _, _, number in histogram.samples()][-1] == 4000
