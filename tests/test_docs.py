"""The documents name a test for each promise: they must exist. What is said of S3's operations is what is routed."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from s4raw.s3.errors import S3Error
from s4raw.s3.routes import BUCKET, OBJECT, ROUTES, SERVICE, route

TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs"
NAMED = sorted(
    {
        (document, *found)
        for document in ("semantics.md", "s3-compatibility.md")
        for found in re.findall(r"`([\w/]+\.py)::(\w+)`", (DOCS / document).read_text())
    }
)


@cache
def names(file):
    """The tests of a file, also those in its classes, and the names at its top level."""
    body = ast.parse((TESTS / file).read_text()).body
    inner = [node for each in body if isinstance(each, ast.ClassDef) for node in each.body]
    found = {node.name for node in (*body, *inner) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return found | {
        name.id
        for node in body
        if isinstance(node, ast.Assign)
        for name in ast.walk(node.targets[0])
        if isinstance(name, ast.Name)
    }


@pytest.mark.parametrize(("document", "file", "name"), NAMED)
def test_a_test_that_is_named_exists(document, file, name):
    assert name in names(file)


def requests(section):
    """The requests that a section of docs/s3-compatibility.md names: method, level, sub-resource."""
    text = (DOCS / "s3-compatibility.md").read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    for method, bucket, key, sub, copy in re.findall(
        r"`([A-Z]+) /(BUCKET)?(/KEY)?(?:\?([\w-]+))?`( from `x-amz-copy-source`)?", text
    ):
        yield method, OBJECT if key else BUCKET if bucket else SERVICE, sub + ("copy" if copy else "")


def test_what_is_said_to_be_there_is_what_is_routed():
    said = [*requests("Implemented"), *requests("Fixed answers")]
    assert len(said) == len(set(said))
    assert set(said) == set(ROUTES)


@pytest.mark.parametrize(("method", "level", "sub"), list(requests("Not implemented")))
def test_what_is_said_not_to_be_there_is_refused(method, level, sub):
    with pytest.raises(S3Error, match="NotImplemented"):
        route(method, level, {sub: ""}, False)


@pytest.mark.parametrize("document", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_a_document_has_each_chapter_once(document):
    chapters = [line for line in document.read_text().splitlines() if line.startswith("## ")]
    assert len(chapters) == len(set(chapters))
