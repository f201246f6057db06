"""Pages of a remote store's objects as undelivered orders make them: what is pending is in, what is deleted is out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from s4raw.objects.base import Backend, Listed, Page, Query
from s4raw.objects.paging import common_prefix, listed
from s4raw.objects.pending import Pending, View

PAGE = 1000  # names, of the remote
_ABOVE_ALL = "\U0010ffff" * 256  # 1 KiB of UTF-8: no key that begins with a prefix sorts above the prefix and this


def list_page(pending: Pending, remote: Backend, bucket: str, query: Query) -> Page:
    """The page that a query asks for. Raises what the remote does."""
    if query.limit <= 0:
        return remote.list(bucket, query)
    entries: list[Listed] = []
    for entry in _Merging(pending, remote, bucket, query).entries():
        if len(entries) == query.limit:
            return Page(entries, True)
        entries.append(entry)
    return Page(entries, False)


class _Merging:
    """The entries that a query lists, from windows of what is pending and pages of the remote, in turn."""

    def __init__(self, pending: Pending, remote: Backend, bucket: str, query: Query) -> None:
        self._pending = pending
        self._remote = remote
        self._bucket = bucket
        self._query = query

    def entries(self) -> Iterator[Listed]:
        """All of them, whatever the limit, which says no more than how many are wanted at once."""
        query, after = self._query, self._query.after
        while True:
            common = common_prefix(after, query)
            window, seen_to = self._pending.window(self._bucket, query.prefix, common + _ABOVE_ALL if common else after)
            most = min(query.limit + 1 + len(window), PAGE)
            page = self._remote.list(self._bucket, query._replace(after=after, limit=most))
            theirs = {entry.name: entry for entry in page.entries}
            mine: dict[str, list[View]] = {}
            for name, view in window:
                mine.setdefault(common_prefix(name, query) or name, []).append(view)
            ends = [name for name in (seen_to, page.entries[-1].name if page.truncated else None) if name is not None]
            for name in sorted(theirs.keys() | mine.keys()):
                if ends and name > min(ends):
                    break
                after = name
                if common_prefix(name, query):
                    cut = seen_to is not None and seen_to.startswith(name)
                    if self._is_alive(name, mine.get(name, ()), name in theirs, cut):
                        yield Listed(name, is_prefix=True)
                elif (entry := _entry(name, mine.get(name, ()), theirs.get(name))) is not None:
                    yield entry
            if not ends:
                return
            after = max(after, min(ends))

    def _is_alive(self, prefix: str, views: Sequence[View], theirs: bool, cut: bool) -> bool:
        """Whether there is an object below a common prefix.

        ``views`` are what is pending below it, all unless it is ``cut``; ``theirs``: the remote has objects there.
        """
        if any(view.entry is not None for view in views):
            return True
        if not cut:
            if not theirs:
                return False
            if not any(view.deleted for view in views):
                return True
        return bool(list_page(self._pending, self._remote, self._bucket, Query(prefix, limit=1)).entries)


def _entry(name: str, views: Sequence[View], theirs: Listed | None) -> Listed | None:
    """The line of an object, if there is one."""
    for view in views:
        if view.deleted:
            return None
        if (info := view.info) is not None:
            return listed(name, info)
    return theirs
