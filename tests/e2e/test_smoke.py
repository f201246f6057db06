"""One whole job on a real ring."""


def test_shuffle_and_merge(s4raw):
    for number in range(6):
        s4raw("cp", "-", f"s4://b/in/{number:05}", input=b"%d\n" % number)
    s4raw("map-to-n", "s4://b/in/", "s4://b/out/", "cat > 00001_x; echo 00001_x")
    s4raw("map-from-n", "s4://b/out/", "s4://b/merged/", "xargs cat")
    assert s4raw("eval", "s4://b/merged/00001_x", "cat").stdout == b"0\n1\n2\n3\n4\n5\n"
