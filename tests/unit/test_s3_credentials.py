"""Key pairs from files and the environment."""

from pathlib import Path

import pytest

from s4raw.errors import ConfError
from s4raw.s3.credentials import Credentials, from_environment, from_file, mode_warning, parse


def test_a_file_holds_a_pair_a_line() -> None:
    found = parse("# ours\n\n  a  b+/=  \nc\td # comment\ne f#g\n", "keys")
    assert [found.secret(key) for key in "ace"] == ["b+/=", "d", "f#g"]
    assert found.secret("x") is None and len(found) == 3 and found.first() == ("a", "b+/=")


def test_an_ini_file_is_read_as_the_aws_tools_keep_it() -> None:
    text = (
        "[default]\naws_access_key_id = A\naws_secret_access_key=b=c\nregion = x\n; note\n"
        "[profile two]\nAWS_SECRET_ACCESS_KEY = d\naws_access_key_id = B\n[none]\n"
    )
    found = parse(text)
    assert found.secret("A") == "b=c" and found.secret("B") == "d" and len(found) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "keys holds no key pair"),
        ("# nothing", "keys holds no key pair"),
        ("a b\nc", "keys, line 2: need ACCESS_KEY SECRET_KEY, got 1 words"),
        ("a b c", "keys, line 1: need ACCESS_KEY SECRET_KEY, got 3 words"),
        ("a b\n\na c", "keys, line 3: a second secret for the access key a"),
        ("a/b c", "keys, line 1: an access key is"),
        ("a \xe9", "keys, line 1: the secret of a is not printable ASCII"),
        ("[x]\naws_access_key_id = A", "keys, line 1: the section [x] needs"),
        ("[x]\naws_access_key_id", "keys, line 2: need NAME = VALUE"),
        ("[x", "keys, line 1: a section's name ends with ]"),
    ],
)
def test_a_bad_file_is_refused_by_name_and_line(text: str, message: str) -> None:
    with pytest.raises(ConfError) as caught:
        parse(text, "keys")
    assert str(caught.value).startswith(message)


def test_an_error_shows_no_secret() -> None:
    with pytest.raises(ConfError) as caught:
        parse("key secret secret")
    assert "secret" not in str(caught.value)
    assert "hidden" not in repr(Credentials({"key": "hidden"}))


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    with pytest.raises(ConfError, match=f"cannot read the S3 keys in {path}: No such file"):
        from_file(str(path))
    path.write_bytes(b"\xff\n")
    with pytest.raises(ConfError, match="not UTF-8"):
        from_file(str(path))
    path.write_text("a b\n")
    assert from_file(str(path)).secret("a") == "b"
    path.write_text("a b\n" * 300_000)
    with pytest.raises(ConfError, match="more than 1048576 bytes"):
        from_file(str(path))


def test_a_file_that_others_may_read_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("a b\n")
    path.chmod(0o640)
    assert "mode 0640" in mode_warning(str(path))
    path.chmod(0o600)
    assert not mode_warning(str(path)) and not mode_warning(str(tmp_path / "none"))


def test_our_variables_come_before_those_of_aws() -> None:
    aws = {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "B"}
    found = from_environment({**aws, "S3D_ACCESS_KEY": "C", "S3D_SECRET_KEY": "D"})
    assert found and found.first() == ("C", "D")
    found = from_environment(aws)
    assert found and found.first() == ("A", "B")
    assert from_environment({"AWS_ACCESS_KEY_ID": "", "S3D_ACCESS_KEY": ""}) is None


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "S3D_SECRET_KEY"])
def test_half_a_pair_in_the_environment_is_refused(name: str) -> None:
    with pytest.raises(ConfError, match=f"\\${name} is set, \\$.* is not"):
        from_environment({name: "x"})


def test_no_keys_at_all_is_an_error_that_says_where_they_come_from() -> None:
    with pytest.raises(ConfError, match="AWS_ACCESS_KEY_ID"):
        Credentials({}).first()
