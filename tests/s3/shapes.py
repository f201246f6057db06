"""botocore's model of S3 as an oracle: parameters that it takes, and whether an answer has only what it knows."""

import base64
import string
from datetime import UTC, datetime
from typing import Any
from xml.etree.ElementTree import Element

from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape
from hypothesis import strategies as st

MAX_DEPTH = 6
CHECKSUMS = ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"]  # of all that the model lists, what botocore can do

_words = st.sampled_from(
    [
        "",
        "a",
        "a/b",
        "a//",
        "/",
        "..",
        "null",
        "*",
        "%",
        "%41",
        "a+b c",
        "<&>\"'",
        "😀",
        "é",
        "\t",
        "\n",
        "\x01",
        "x" * 300,
    ]
)
_texts = _words | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_ascii = st.text(string.ascii_letters + string.digits + "-._~ !\"#$%&'()*+,/:;<=>?@[]^`{|}", min_size=1, max_size=12)
_header_texts = _ascii.map(str.strip).filter(bool)
_numbers = st.integers(0, 4) | st.sampled_from([-1, 1000, 1001, 10_000, 10_001, 2**31 - 1])
_times = st.sampled_from([0, 1_000_000_000, 4_000_000_000]).map(lambda at: datetime.fromtimestamp(at, UTC))


def _base64(size: int) -> st.SearchStrategy[str]:
    return st.binary(min_size=size, max_size=size).map(lambda raw: base64.b64encode(raw).decode())


# Members that have a meaning that the model does not tell; unlikely values are among them, too.
_MEMBERS: dict[str, st.SearchStrategy[Any]] = {
    "ContentMD5": _base64(16) | _header_texts,
    "ChecksumCRC32": _base64(4) | _header_texts,
    "ChecksumCRC32C": _base64(4) | _header_texts,
    "ChecksumCRC64NVME": _base64(8) | _header_texts,
    "ChecksumSHA1": _base64(20) | _header_texts,
    "ChecksumSHA256": _base64(32) | _header_texts,
    "ChecksumAlgorithm": st.sampled_from(CHECKSUMS),
    "Range": st.sampled_from(["bytes=0-1", "bytes=1-", "bytes=-1", "bytes=9999-", "bytes=0-0,2-2", "lines=1-2", "x"]),
    "CopySourceRange": st.sampled_from(["bytes=0-1", "bytes=0-9999", "bytes=1-0", "x"]),
    "Tagging": st.sampled_from(["a=b", "", "a=b&c=d", "a=1&a=2", "%", "aws:x=1", "=1"]),
    "ContentEncoding": st.sampled_from(["gzip", "aws-chunked", "aws-chunked,gzip"]),
    "ObjectAttributes": st.lists(
        st.sampled_from(["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]), min_size=1, max_size=5
    ),
    "MaxKeys": _numbers,
    "Delimiter": st.sampled_from(["/", "//", "a", "😀", "\n", ""]),
}
# A length that is not the body's makes clients wait; a key for encryption is refused, which other tests show.
LEFT_OUT = frozenset(("ContentLength", "RequestRoute", "RequestToken"))


def parameters(
    operation: OperationModel, known: dict[str, st.SearchStrategy[Any]]
) -> st.SearchStrategy[dict[str, Any]]:
    """Parameters of an operation: the required ones, and a few others. ``known`` has members' values by name."""
    shape = operation.input_shape
    if shape is None:
        return st.just({})
    return _structure(shape, {**_MEMBERS, **known}, MAX_DEPTH)


def _structure(shape: StructureShape, known: dict[str, Any], depth: int) -> st.SearchStrategy[dict[str, Any]]:
    members = {name: member for name, member in shape.members.items() if name not in LEFT_OUT}
    required = [name for name in shape.required_members if name in members]
    strategies = {name: _member(name, member, known, depth) for name, member in members.items()}
    if getattr(shape, "is_tagged_union", False):
        return st.sampled_from(sorted(members)).flatmap(lambda name: st.fixed_dictionaries({name: strategies[name]}))
    optional = sorted(set(members) - set(required)) if depth else []
    fixed = {name: strategies[name] for name in required}
    if not optional:
        return st.fixed_dictionaries(fixed)
    few = st.lists(st.sampled_from(optional), max_size=3, unique=True)
    return few.flatmap(lambda names: st.fixed_dictionaries({**fixed, **{name: strategies[name] for name in names}}))


def _member(name: str, shape: Shape, known: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
    if name in known and not (name in ("Tagging", "Range") and shape.type_name != "string"):
        return known[name]
    return st.deferred(lambda: _value(shape, known, depth - 1))


def _value(shape: Shape, known: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
    kind = shape.type_name
    if isinstance(shape, StructureShape):
        return _structure(shape, known, max(depth, 0))
    if isinstance(shape, ListShape):
        return st.lists(_value(shape.member, known, depth - 1), min_size=min(1, max(depth, 0)), max_size=2)
    if isinstance(shape, MapShape):
        names = st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=6)
        return st.dictionaries(names, _header_texts, max_size=3)
    if kind == "string":
        if getattr(shape, "enum", None):
            return st.sampled_from(shape.enum)
        in_a_header = shape.serialization.get("location") == "header"
        return _header_texts if in_a_header else _texts
    if kind in ("integer", "long"):
        return _numbers
    if kind == "boolean":
        return st.booleans()
    if kind == "timestamp":
        return _times
    if kind == "blob":
        return st.binary(max_size=200) | st.just(b"long" * 20_000)
    if kind in ("float", "double"):
        return st.floats(allow_nan=False, allow_infinity=False)
    raise AssertionError(f"a shape of another kind: {kind}")


# What answers have


def strangers(operation: OperationModel, root: Element) -> list[str]:
    """What an answer's XML has that the model does not know, or has as another type."""
    shape = operation.output_shape
    if shape is None:
        return [f"an answer that has no content: {root.tag}"]
    payload = shape.serialization.get("payload")
    if payload:
        shape = shape.members[payload]
    return list(_elements(shape, root, _local(root)))


def _local(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _elements(shape: Shape, element: Element, path: str) -> list[str]:
    if isinstance(shape, StructureShape):
        return _members(shape, element, path)
    if isinstance(shape, ListShape):
        name = shape.member.serialization.get("name", "member")
        found = [f"{path}/{_local(child)}" for child in element if _local(child) != name]
        return found + [error for child in element for error in _elements(shape.member, child, f"{path}/{name}")]
    if len(element):
        return [f"{path} has elements"]
    return _scalar(shape, element.text or "", path)


def _members(shape: StructureShape, element: Element, path: str) -> list[str]:
    names: dict[str, Shape] = {}
    for name, member in shape.members.items():
        if member.serialization.get("location") is None and not member.serialization.get("xmlAttribute"):
            flat = isinstance(member, ListShape) and member.serialization.get("flattened")
            own = member.member.serialization.get("name") if flat and isinstance(member, ListShape) else None
            names[own or member.serialization.get("name", name)] = member
    found: list[str] = []
    counts: dict[str, int] = {}
    for child in element:
        name = _local(child)
        member = names.get(name)
        at = f"{path}/{name}"
        if member is None:
            found.append(at)
        elif isinstance(member, ListShape) and member.serialization.get("flattened"):
            found += _elements(member.member, child, at)
        else:
            counts[name] = counts.get(name, 0) + 1
            found += _elements(member, child, at)
    if (element.text or "").strip():
        found.append(f"{path} has text: {element.text!r}")
    return found + [f"{path}/{name} is there {count} times" for name, count in counts.items() if count > 1]


def _scalar(shape: Shape, text: str, path: str) -> list[str]:
    kind = shape.type_name
    good = True
    if kind in ("integer", "long"):
        good = text.isdecimal()
    elif kind == "boolean":
        good = text in ("true", "false")
    elif kind == "timestamp":
        try:
            datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ")
        except ValueError:
            good = False
    elif kind == "string" and getattr(shape, "enum", None):
        good = text in shape.enum
    return [] if good else [f"{path} is no {shape.name}: {text!r}"]


def not_of_their_enum(shape: Shape | None, value: Any, path: str = "") -> list[str]:
    """Parsed texts that the model's enumerations do not have."""
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        found = []
        for name, member in shape.members.items():
            if name in value:
                found += not_of_their_enum(member, value[name], f"{path}.{name}")
        return found
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [error for one in value for error in not_of_their_enum(shape.member, one, f"{path}[]")]
    if getattr(shape, "enum", None) and value not in shape.enum:  # type: ignore[union-attr]
        return [f"{path} is {value!r}"]
    return []
