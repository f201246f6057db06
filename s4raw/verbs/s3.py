"""Verbs of the S3 daemon: s3 run, and those of the client in ``s3_client``, ``s3_status`` and ``s3_queue``."""

from __future__ import annotations

from s4raw.arguments import Arguments, Verb
from s4raw.verbs import s3_client, s3_queue, s3_status

FAMILY = """\
The S3 daemon, and a small client of it (or of any S3 that is addressed by path).

Usage: s4raw s3 VERB [ARGUMENTS...]

Verbs:
  run                run the daemon
  status [TARGET]    whether the daemon is there; what is known of a bucket or an object
  ls [TARGET]        list buckets or objects
  get OBJECT         write an object to stdout
  put OBJECT         store stdin as an object
  set TARGET         set tags of an object or a bucket
  presign OBJECT     print a URL that works without keys, for a while
  rm OBJECT          delete an object
  mb BUCKET          make a bucket
  rb BUCKET          remove an empty bucket
  retry [WHAT]...    try queued writes again at once, also those that were set aside
  drop WHAT...       take writes out of the write queue
  flush              wait until all that is queued has reached the remote

Each has its own text: s4raw s3 VERB --help

Options:
  -h, --help         show this text
"""

USAGE = {
    "run": """\
Run the S3 daemon, in the foreground, until SIGTERM or SIGINT: any S3 client can talk to it.

Usage: s4raw s3 run [options] [--keys FILE]... [URL]

Objects live below a directory, or with --ring on the ring's servers, where its own verbs see them as s4:// keys, or
with --remote at another S3, which this daemon stands in front of: at URL, or where $S3_ENDPOINT_URL or the SDKs' own
variables and files say, with the credentials that those say. With --write-queue what is written is kept here, seen at
once, and reaches the remote in the background, whatever happens in between.

Options:
  --address A:P        listen here (default: that of $S3D_ENDPOINT, or localhost:33333)
  --local DIR          objects live in this directory (default: $S3D_LOCAL_DIR, or s3d_data)
  --ring               objects live on the ring of the conf, each on its server
  --remote             objects live at a remote S3: the one at URL, if that is given
  --profile NAME       of the SDKs' files: the remote's credentials, region and endpoint
  --remote-region NAME the remote's region
  --remote-ca FILE     trust these certificates (PEM) of the remote, not the system's
  --remote-virtual     name the remote's buckets in the host, as Amazon prefers it
  --connections N      connections to the remote, at once (default: 25)
  --write-queue        queue writes (default: $S3D_WRITE_QUEUE)
  --queue DIR          where the queue is (default: $S3D_WRITE_QUEUE_DIR, or s3d_queue beside $S3D_LOCAL_DIR)
  --queue-size SIZE    it holds so many bytes, as in 500G (default: $S3D_WRITE_QUEUE_MAX_SIZE, or no limit)
  --queue-files N      so many writes (default: $S3D_WRITE_QUEUE_MAX_FILES, or no limit)
  --queue-age S        the oldest waits for so many seconds (default: $S3D_WRITE_QUEUE_MAX_AGE, or no limit)
  --queue-refuse       at a limit refuse writes (503 SlowDown) at once, not after 30 seconds
  --max-attempts N     set a write aside after so many that failed, also for lack of a remote (default: try for ever)
  --http A:P           answer GET /metrics and /status of the write queue here
  -c, --conf FILE      the ring's conf (default: $S4_CONF_PATH, or ~/.s4.conf)
  --keys FILE          key pairs that clients may sign with: one ACCESS_KEY SECRET_KEY a line, or AWS's own format
                       (default: $S3D_ACCESS_KEY and $S3D_SECRET_KEY, or $AWS_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY)
  --anonymous          whoever does not sign may do everything, too
  --region NAME        the region that the daemon says it is in (default: us-east-1)
  --domain NAME        buckets may be named in the host, as BUCKET.NAME
  --tls-cert FILE      speak HTTPS, with this certificate (PEM)
  --tls-key FILE       its private key (default: in the certificate's file)
  --workers N          processes that share the work (default: 1)
  --max-connections N  connections at once; more are answered 503 (default: 4096)
  --idle-timeout S     close a connection that was idle for so long (default: 60)
  --grace S            after SIGTERM, wait so long for what is running (default: 30)
  --access-log         log every request
  --listen-fd N        serve on this listening socket, inherited from the parent
  --lifeline-fd N      stop when this descriptor, inherited from the parent, reaches its end
  -h, --help           show this text
""",
    **s3_client.USAGE,
    **s3_queue.USAGE,
}


def run(arguments: Arguments) -> int:
    """Run the daemon."""
    from s4raw.s3.daemon import Options, serve
    from s4raw.verbs.s3_remote import upstream

    defaults = Options()
    serve(
        Options(
            address=arguments["--address"],
            local=arguments["--local"],
            upstream=upstream(arguments),
            ring=arguments["--ring"],
            conf=arguments["--conf"],
            keys=arguments["--keys"],
            anonymous=arguments["--anonymous"],
            region=arguments["--region"] or defaults.region,
            domain=arguments["--domain"] or defaults.domain,
            certificate=arguments["--tls-cert"],
            private_key=arguments["--tls-key"],
            workers=arguments.count("--workers", defaults.workers),
            max_connections=arguments.count("--max-connections", defaults.max_connections),
            idle_seconds=arguments.number("--idle-timeout", defaults.idle_seconds),
            grace_seconds=arguments.number("--grace", defaults.grace_seconds),
            access_log=arguments["--access-log"],
            listen_fd=arguments.count("--listen-fd", 0) or None,
            lifeline_fd=arguments.count("--lifeline-fd", 0) or None,
        )
    )
    return 0


VERBS: dict[str, Verb] = {"run": run, "status": s3_status.status, **s3_client.VERBS, **s3_queue.VERBS}
