"""XML in and out."""

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4raw.s3 import xml
from s4raw.s3.errors import S3Error

LEGAL = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\ufffe\uffff").filter(xml.can_hold))


@given(LEGAL)
def test_what_is_written_is_read_as_it_was(text: str) -> None:
    raw = xml.document("Root", xml.element("A", text))
    assert (ElementTree.fromstring(raw)[0].text or "") == text
    assert xml.read(raw, "Root").need("A") == text


@given(st.text(st.characters(blacklist_categories=["Cs"])))
def test_anything_can_be_told_in_an_error(text: str) -> None:
    ElementTree.fromstring(f"<A>{xml.plain(text)}</A>")


def test_control_characters_are_references_as_in_s3() -> None:
    assert xml.text("\x00\x01\t\n\r\x1f<>&\"'") == "&#x0;&#x1;\t\n&#xd;&#x1f;&lt;&gt;&amp;&quot;'"


def test_times_are_whole_seconds() -> None:
    assert xml.timestamp(1_139_000_000_999_999_999) == "2006-02-03T20:53:20.000Z"


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<A>", b"<A></B>", b"<B/>", b"x<A/>", b"<A/>x", b"<A>\xff</A>", b"<A>&b;</A>", b"<x:A/>"),
        *(
            b"<!DOCTYPE A><A/>",
            b'<!DOCTYPE A [<!ENTITY b "c">]><A>&b;</A>',
            b"<A>" + b"<B>" * 50 + b"</B>" * 50 + b"</A>",
        ),
        *(b'<?xml version="1.0" encoding="bogus"?><A/>', b"<A>&#1;</A>", b"\x00<A/>"),
    ],
)
def test_what_is_refused(body: bytes) -> None:
    with pytest.raises(S3Error, match="MalformedXML"):
        xml.read(body, "A")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        xml.read(body, "A")
    except S3Error as error:
        assert error.code == "MalformedXML"


def test_namespaces_do_not_matter() -> None:
    node = xml.read(b'<p:A xmlns:p="urn:x"><B xmlns="urn:y">1</B><p:B>2</p:B><C/></p:A>', "A")
    assert [child.text for child in node.all("B")] == ["1", "2"]
    assert node.get("C") == "" and node.get("D") is None
