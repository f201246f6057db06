"""``completion``: what real shells make of a tab."""

import os
import pty
import shutil
import subprocess
import sys

import pytest
from conftest import wait_for

from s4raw.arguments import options
from s4raw.verbs import FAMILIES, MODULES, load, members

# What a shell is told first: a key, Ctrl-T, that writes the line as it stands to the file "line".
STARTS = {
    "bash": (["--norc", "--noprofile", "-i"], 'bind -x \'"\\C-t": printf %s "$READLINE_LINE" > new; mv new line\''),
    "zsh": (
        ["-f", "-i"],
        "autoload -Uz compinit; compinit -u -D; "
        "show() { printf %s \"$BUFFER\" > new; mv new line; }; zle -N show; bindkey '^T' show; "
        "zstyle ':completion:*' menu no",
    ),
}


@pytest.fixture(params=STARTS)
def complete(request, ring, client, tmp_path):
    """A function that types a line and a tab into a shell; what the line is then."""
    if not shutil.which(request.param):
        pytest.skip(f"{request.param} is not installed")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "s4raw").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m s4raw "$@"\n')
    (tools / "s4raw").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "S4_CONF_PATH": ring.conf, "TERM": "dumb"}
    environment |= {"HOME": str(tmp_path), "PS1": "", "HISTFILE": ""}
    arguments, start = STARTS[request.param]
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        [shutil.which(request.param), *arguments],
        **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
        cwd=tmp_path,
        env=environment,
        start_new_session=True,
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    line = tmp_path / "line"

    def type_and_wait(keys):
        os.write(ours, keys.encode())
        wait_for(lambda: drain(ours) or line.exists(), keys)
        shown = line.read_text()
        line.unlink()
        return shown

    type_and_wait(f"{start}; source <(s4raw completion {request.param}); echo > line\n")
    yield lambda text: type_and_wait(f"\x15{text}\t\x14")
    shell.kill()
    shell.wait()
    os.close(ours)


def drain(fd):
    """Read what a shell shows, or it would stop at some point."""
    try:
        os.read(fd, 1 << 16)
    except (BlockingIOError, OSError):
        pass


def test_a_tab_completes_verbs_options_files_and_keys(complete, client, ring, tmp_path):
    for name in ("dir/one", "dir/other", "deep/er/00001_x"):
        client.put(f"s4://bucket/{name}", b"")
    client.close()
    (tmp_path / "local file").touch()
    shutil.copy(ring.conf, tmp_path / "other.conf")
    for text, completed in {
        "s4raw hea": "s4raw health ",
        "s4raw map-f": "s4raw map-from-n ",
        "s4raw cp --rec": "s4raw cp --recursive ",
        "s4raw cp loc": "s4raw cp local\\ file ",
        "s4raw cat s": "s4raw cat s4://",
        "s4raw cat s4": "s4raw cat s4://",
        "s4raw cat s4://": "s4raw cat s4://bucket/",
        "s4raw cat s4://buc": "s4raw cat s4://bucket/",
        "s4raw ls s4://bucket/di": "s4raw ls s4://bucket/dir/",
        "s4raw cat s4://bucket/dir/o": "s4raw cat s4://bucket/dir/o",
        "s4raw cat s4://bucket/dir/on": "s4raw cat s4://bucket/dir/one ",
        "s4raw cp -r file s4://bucket/deep/": "s4raw cp -r file s4://bucket/deep/er/",
        "s4raw stat -c other.conf s4://bucket/dir/ot": "s4raw stat -c other.conf s4://bucket/dir/other ",
        "s4raw ls -c oth": "s4raw ls -c other.conf ",
        "s4raw cat s4://none": "s4raw cat s4://none",
        "s4raw ls s4://bucket/d*": "s4raw ls s4://bucket/d*",
        "s4raw s3 sta": "s4raw s3 status ",
        "s4raw s3 status --js": "s4raw s3 status --json ",
        "s4raw s3 run --anon": "s4raw s3 run --anonymous ",
        "s4raw s3 dro": "s4raw s3 drop ",
        "s4raw s3 drop --fai": "s4raw s3 drop --failed ",
        "s4raw s3 put --keys loc": "s4raw s3 put --keys local\\ file ",
    }.items():
        assert complete(text) == completed, text


@pytest.mark.parametrize("shell", STARTS)
def test_a_script_knows_every_verb_and_every_option(s4raw, shell):
    script = s4raw("completion", shell).stdout.decode()
    texts = {verb: load(verb)[0] for verb in MODULES if verb not in FAMILIES}
    texts |= {f'"{family} {verb}"': text for family in FAMILIES for verb, text in members(family)[1].items()}
    for verb, text in texts.items():
        [case] = [line for line in script.splitlines() if line.strip().startswith(f"{verb}) options=")]
        for names, takes_value in options(text):
            assert set(names) <= set(case.split("'")[1].split())
            assert takes_value == (names[0] in case.split("'")[3].split())
