"""The main usage text. Each verb has its own, beside the function that does it: see ``verbs``."""

MAIN = """\
s4raw: ephemeral data on the disks of a few machines, and commands where the data lies.

Usage: s4raw VERB [ARGUMENTS...]
       s4raw VERB --help
       s4raw --help | --version

Store:
  cp [-r] SRC DST              copy to or from the ring; - is stdin or stdout
  sync SRC DST                 make keys like a directory, or a directory like keys
  mv [-r] SRC DST              move a key or a file
  get KEY [FILE]               write a key, or a part of it, to a file or stdout
  cat KEY...                   write keys to stdout
  ls [-r] [PREFIX]             list keys, or buckets
  stat KEY...                  size, time, digest, server, and the path there
  du [-r] [PREFIX]             count bytes and keys
  find GLOB                    names of keys, by glob, size and time
  rm [-r] PREFIX               delete a key, or all keys under a prefix

Compute, on the servers that hold the keys:
  eval KEY CMD                 run CMD with the key as stdin, its output comes here
  map INDIR OUTDIR CMD         1:1, every key through CMD
  map-to-n INDIR OUTDIR CMD    1:n, shuffle: the files that CMD names go to their servers
  map-from-n INDIR OUTDIR CMD  n:1, merge: keys with one numeric prefix or name
  jobs [ID]                    list map calls, running and recent
  cancel ID                    end a map call on every server

Many verbs in one process:
  run FILE                     a verb a line, over kept connections; - is stdin

Ring:
  health                       ask every server
  scrub [PREFIX]               read every key again, name the damaged ones
  servers                      print the conf's servers
  server                       run a server
  local [-n N] [-- CMD...]     an embedded ring on this machine

S3:
  s3 run                       run the S3 daemon: over a directory, or over the ring
  s3 status|ls|get|put|...     a small client of it; s4raw s3 --help has them all

Uploads, by a daemon that keeps trying:
  push                         run that daemon; s4raw push --help has its other verbs
  send FILE ALIAS/BUCKET/KEY   hand a file over to it

For your shell:
  completion bash|zsh          print a script that completes verbs, options and keys

The ring is the conf file: --conf, else $S4_CONF_PATH, else ~/.s4.conf, one ipv4:port a line.
Exit codes: 0 done, 1 it failed, 2 wrong usage or configuration, 130 interrupted.
"""
