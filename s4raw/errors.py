"""The error tree. Each class owns its wire code, its exit code and its HTTP status.

    S4Error
    ├── caller's fault
    │   ├── UsageError        a verb was called wrongly
    │   ├── ConfError         the conf file, the secret or an environment variable is unusable
    │   ├── BadKey            a key or bucket breaks the grammar
    │   ├── NoSuchKey         nothing is stored under the key
    │   ├── KeyExists         keys are immutable, and this one is taken
    │   ├── LocalFileError    a file on the caller's side cannot be read or written
    │   ├── BadRange          no byte of the key lies in the range that was asked for
    │   ├── NoSuchUpload      nothing is known of the parts of an upload
    │   ├── KeyChanged        the key is not the one that a transfer in parts began with
    │   ├── WrongServer       the key is placed on another server
    │   ├── RingMismatch      the two ends read different confs
    │   ├── AuthFailed        the peer does not hold the pre-shared key
    │   ├── NoSuchCall        no map call of this id is running
    │   ├── NoSuchBucket      an S3 bucket that is not there
    │   ├── BucketNotEmpty    and one that cannot be deleted
    │   ├── PreconditionFailed  a condition that a request named does not hold
    │   ├── NotModified       the object is the one that the caller has
    │   ├── InvalidPart       a part of a multipart upload is not there, or another one
    │   ├── Refused           what a remote S3 answered, with its own code
    │   ├── CallFailed        a map call that was to keep going did, but not all of it was done
    │   └── CommandFailed     the user's command ended with a non-zero exit code
    │       └── CommandTimeout    or ran out of time
    ├── this server's fault
    │   ├── Busy              too many connections, or draining
    │   ├── DiskFull          no space left for the key
    │   ├── QueueFull         the queue of writes is at its limit
    │   ├── StoreError        any other failure of the disk
    │   └── InternalError     a defect: the server logged a traceback
    ├── the peer's fault, or the network's
    │   ├── Unreachable       no connection could be made
    │   ├── ConnectionLost    the connection ended in mid-call
    │   ├── PeerTimeout       the peer was silent for too long
    │   ├── ProtocolError     bytes that are not our protocol
    │   │   └── VersionMismatch   our protocol, of a version we do not speak
    │   └── Cancelled         the caller went away, or asked to stop
    │       └── Interrupted       here, by a signal
    └── the data's fault
        └── Corrupt           bytes that do not match their digest

An error that crosses the wire arrives as the same class, with the same message, server and key.
"""

from __future__ import annotations


class S4Error(Exception):
    """Anything s4raw reports to its user: a message, and where it happened.

    ``server`` is ``address:port`` and ``key`` is ``s4://bucket/key``; either is empty when it is not known.
    ``detail`` is what a failed command wrote to its stderr, ``status`` the command's exit code, and ``call`` the id of
    the map call it was part of.
    """

    code = 1
    exit_code = 1
    http_status = 500

    def __init__(
        self, message: str, *, server: str = "", key: str = "", detail: bytes = b"", status: int = 0, call: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.server = server
        self.key = key
        self.detail = detail
        self.status = status
        self.call = call

    def at(self, *, server: str = "", key: str = "", call: str = "") -> S4Error:
        """Fill in the server, the key and the call where they are still unknown; returns the error itself."""
        self.server = self.server or server
        self.key = self.key or key
        self.call = self.call or call
        return self

    def __str__(self) -> str:
        named = (("key", self.key), ("server", self.server), ("call", self.call))
        where = [f"{what} {name}" for what, name in named if name]
        return f"{self.message} ({', '.join(where)})" if where else self.message


class UsageError(S4Error):
    """A verb was called wrongly."""

    code, exit_code, http_status = 2, 2, 400


class ConfError(S4Error):
    """The conf file, the secret or an environment variable is unusable."""

    code, exit_code, http_status = 3, 2, 500


class BadKey(S4Error):
    """A key or bucket breaks the grammar."""

    code, exit_code, http_status = 4, 2, 400


class NoSuchKey(S4Error):
    """Nothing is stored under the key."""

    code, http_status = 5, 404


class KeyExists(S4Error):
    """Keys are immutable, and this one is taken."""

    code, http_status = 6, 409


class WrongServer(S4Error):
    """The key is placed on another server of the ring."""

    code, http_status = 7, 421


class RingMismatch(S4Error):
    """The two ends of a connection read different confs."""

    code, exit_code, http_status = 8, 2, 421


class AuthFailed(S4Error):
    """The peer does not hold the pre-shared key."""

    code, exit_code, http_status = 9, 2, 403


class CommandFailed(S4Error):
    """The user's command ended with a non-zero exit code: ``status``, with its stderr in ``detail``."""

    code = 10


class CommandTimeout(CommandFailed):
    """The user's command ran out of time and was killed."""

    code = 11


class Busy(S4Error):
    """The server has too many connections, or is draining."""

    code, http_status = 12, 503


class DiskFull(S4Error):
    """No space is left for the key."""

    code, http_status = 13, 507


class StoreError(S4Error):
    """The disk failed in a way that has no class of its own."""

    code = 14


class InternalError(S4Error):
    """A defect of s4raw: the server's log holds the traceback."""

    code = 15


class Unreachable(S4Error):
    """No connection to the server could be made."""

    code, http_status = 16, 502


class ConnectionLost(S4Error):
    """The connection ended in mid-call."""

    code, http_status = 17, 502


class PeerTimeout(S4Error):
    """The peer was silent for too long."""

    code, http_status = 18, 504


class ProtocolError(S4Error):
    """Bytes that are not our protocol."""

    code, http_status = 19, 400


class VersionMismatch(ProtocolError):
    """Our protocol, of a version this end does not speak."""

    code = 20


class Cancelled(S4Error):
    """The caller went away, or asked to stop."""

    code, exit_code, http_status = 21, 130, 499


class Interrupted(Cancelled):
    """The user of this process interrupted it; never sent."""

    code = 29


class Corrupt(S4Error):
    """Bytes that do not match their digest, on disk or on the wire."""

    code, http_status = 22, 500


class LocalFileError(S4Error):
    """A file on the caller's side cannot be read or written."""

    code = 23


class BadRange(S4Error):
    """No byte of the key lies in the range that was asked for."""

    code, exit_code, http_status = 24, 2, 416


class KeyChanged(S4Error):
    """The key is not the one that a transfer in parts began with: it was deleted and put again."""

    code, http_status = 25, 412


class NoSuchUpload(S4Error):
    """Nothing is known of the parts of an upload: it was committed, given up, or swept."""

    code, http_status = 26, 404


class NoSuchCall(S4Error):
    """No map call of this id is running."""

    code, http_status = 27, 404


class CallFailed(S4Error):
    """A map call that was to keep going has: some of its commands failed, or contact with a server was lost."""

    code = 28


class NoSuchBucket(S4Error):
    """There is no such S3 bucket."""

    code, http_status = 30, 404


class BucketNotEmpty(S4Error):
    """Only an empty S3 bucket can be deleted."""

    code, http_status = 31, 409


class PreconditionFailed(S4Error):
    """A condition that an S3 request named does not hold."""

    code, http_status = 32, 412


class NotModified(S4Error):
    """The S3 object is the one that the caller has: its ETag is ``detail``."""

    code, http_status = 33, 304


class InvalidPart(S4Error):
    """A part of a multipart upload is not there, or is another one by now."""

    code, http_status = 34, 400


class QueueFull(S4Error):
    """The queue of writes holds as many bytes or files as it may, or its oldest entry waits for too long."""

    code, http_status = 35, 503


class Refused(S4Error):
    """What a remote S3 answered instead of doing it: ``s3_code`` and ``http`` are its, if it gave any."""

    code, http_status = 36, 502
    s3_code = ""
    http = 0


def _tree(root: type[S4Error]) -> dict[int, type[S4Error]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found


BY_CODE = _tree(S4Error)


def from_code(code: int, message: str, *, server: str, key: str, detail: bytes, status: int) -> S4Error:
    """Rebuild the error a peer sent. An unknown code becomes a plain S4Error with the peer's words."""
    return BY_CODE.get(code, S4Error)(message, server=server, key=key, detail=detail, status=status)
