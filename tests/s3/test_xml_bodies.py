"""Whatever XML, or what is not even that, comes as the body of a request: an answer of S3, never a fault of ours."""

from xml.sax.saxutils import escape, quoteattr

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from objects_support import Body, etag_of

from s4raw.keys import Key
from s4raw.objects.base import Attributes, Backend
from s4raw.s3.errors import CODES
from s4raw.s3.xml import NAMESPACE

from .service import Raw

# where a body of XML goes to, and what is right there
BODIES = {
    "PUT /new-bucket": "<CreateBucketConfiguration><LocationConstraint>us-east-1</LocationConstraint>"
    "<Tags><Tag><Key>k</Key><Value>v</Value></Tag></Tags></CreateBucketConfiguration>",
    "PUT /bucket?tagging": "<Tagging><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tagging>",
    "PUT /bucket/a?tagging": "<Tagging><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tagging>",
    "PUT /bucket?acl": "<AccessControlPolicy><AccessControlList></AccessControlList></AccessControlPolicy>",
    "PUT /bucket/a?acl": "<AccessControlPolicy><AccessControlList></AccessControlList></AccessControlPolicy>",
    "PUT /bucket?versioning": "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
    "POST /bucket?delete": "<Delete><Object><Key>k</Key><VersionId>null</VersionId><ETag>e</ETag>"
    "<LastModifiedTime>2020-01-01T00:00:00Z</LastModifiedTime><Size>1</Size></Object><Quiet>true</Quiet></Delete>",
    "POST /bucket/a?uploadId=": "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>e</ETag>"
    "<ChecksumCRC32>AAAAAA==</ChecksumCRC32></Part></CompleteMultipartUpload>",
}
NAMES = sorted(
    {piece.partition(">")[0] for body in BODIES.values() for piece in body.split("<") if piece[:1].isalpha()}
)
ROOTS = [body[1:].partition(">")[0] for body in BODIES.values()]

texts = st.sampled_from(
    [
        "",
        " ",
        "a",
        "a/b",
        "1",
        "-1",
        "0",
        "99999999999999999999",
        "1e3",
        "٣",
        "²",
        "true",
        "null",
        etag_of(b"first"),
        "x" * 2000,
    ]
) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
spaces = st.sampled_from(
    ["", "", "", f" xmlns={quoteattr(NAMESPACE)}", ' xmlns="http://other/"', ' a="1"', ' xmlns:p="u"']
)
names = st.sampled_from(NAMES) | st.sampled_from(NAMES) | st.sampled_from(["Other", "p:Key", "é", "Key.2", "xml:Key"])


def _element(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(lambda name, space, content: f"<{name}{space}>{content}</{name}>", names, spaces, inner)


trees = st.recursive(
    texts.map(escape) | st.sampled_from(["<!-- -->", "<?p?>", "<![CDATA[<a>]]>", "&#1;", "&amp;", "&e;"]),
    lambda children: st.lists(_element(children), max_size=4).map("".join),
    max_leaves=12,
)


@st.composite
def mutated(draw: st.DrawFn, body: str) -> str:
    """What is right, with pieces of it cut, doubled, moved or replaced."""
    pieces = body.replace("<", "\0<").replace(">", ">\0").split("\0")
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(pieces) - 1))
        match draw(st.integers(0, 4)):
            case 0:
                pieces[at] = draw(texts.map(escape))
            case 1:
                pieces.insert(at, pieces[draw(st.integers(0, len(pieces) - 1))])
            case 2:
                pieces[at], pieces[-at] = pieces[-at], pieces[at]
            case 3:
                pieces[at:] = []
                pieces.append("")
            case 4:
                pieces.insert(at, draw(trees))
    return "".join(pieces)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    """Where to, and what."""
    target = draw(st.sampled_from(sorted(BODIES)))
    match draw(st.integers(0, 7)):
        case 0:
            return target, draw(st.binary(max_size=60))
        case 1:
            root = draw(st.sampled_from(ROOTS))
            return target, f"<{root}{draw(spaces)}>{draw(trees)}</{root}>".encode()
        case 2 | 3:
            root = BODIES[target][1:].partition(">")[0]
            return target, f"<{root}{draw(spaces)}>{draw(trees)}</{root}>".encode()
        case 4:
            head = '<?xml version="1.0" encoding="{}"?>'
            encoding = draw(st.sampled_from(["UTF-8", "UTF-16", "latin-1", "ascii", "idna", "zip", "x", ""]))
            codec = draw(st.sampled_from(["utf-8", "utf-16", "utf-16-be", "utf-8-sig"]))
            return target, (head.format(encoding) + BODIES[target]).encode(codec)
    return target, draw(mutated(BODIES[target])).encode()


def test_no_body_is_a_fault_of_ours(backend: Backend, raw: Raw, complaints: list[str]) -> None:
    key = Key("bucket", "a")
    backend.create_bucket("bucket")

    @settings(deadline=None, database=None, max_examples=300, suppress_health_check=list(HealthCheck))
    @given(bodies())
    @example(("PUT /new-bucket", b"<CreateBucketConfiguration>" * 100_000))
    @example(("POST /bucket?delete", b"<Delete>" + b"<Object><Key>a</Key></Object>" * 1001 + b"</Delete>"))
    @example(("PUT /bucket?tagging", b'<!DOCTYPE a [<!ENTITY e "e">]><Tagging><TagSet>&e;</TagSet></Tagging>'))
    @example(("POST /bucket/a?uploadId=", BODIES["POST /bucket/a?uploadId="].replace(">1<", ">²<").encode()))
    @example(("POST /bucket/a?uploadId=", BODIES["POST /bucket/a?uploadId="].replace(">1<", ">--1<").encode()))
    @example(("POST /bucket?delete", BODIES["POST /bucket?delete"].replace(">1<", ">²<").encode()))
    @example(("POST /bucket?delete", BODIES["POST /bucket?delete"].replace("01-01", "19-39").encode()))
    def is_answered(sent: tuple[str, bytes]) -> None:
        target, body = sent
        backend.put(key, Body(b"content", Attributes(etag_of(b"content"))))
        if target.endswith("uploadId="):
            upload = backend.create_upload(key, Attributes())
            backend.put_part(key, upload, 1, Body(b"first"))
            target += upload
        method, _, path = target.partition(" ")
        reply = raw(method, path, body)
        assert reply.status < 500 or reply.status == CODES["NotImplemented"][0], (reply, complaints)
        if reply.status >= 400:
            assert reply.body.partition(b"<Code>")[2].partition(b"</Code>")[0].decode() in CODES
        assert raw("HEAD", "/bucket").status == 200

    is_answered()
