"""Listings of objects and of unfinished uploads, page by page."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

from epochal.data.testing.s3.answers import Answer, Content, document, key_text, time_text
from epochal.data.testing.s3.objects import StoredObject
from epochal.data.testing.s3.uploads import Upload


def listed(
    bucket: str,
    objects: Mapping[str, StoredObject],
    *,
    prefix: str,
    delimiter: str,
    after: str,
    token: str,
    num_keys: int,
    encoded: bool,
) -> Answer:
    """One page of `ListObjectsV2`: keys, and with a delimiter the prefixes up to it, sorted.

    token: where the page before ended, as that has told it. after: a key; it counts where there is
    no token.
    """
    start = base64.urlsafe_b64decode(token).decode() if token else after
    found: list[tuple[str, Content]] = []
    last, truncated, folder = start, False, ""
    for key in sorted(objects):
        if not key.startswith(prefix) or key <= start:
            continue
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        inside = key[: cut + len(delimiter)] if cut >= 0 else ""
        if inside and (inside == folder or (token and start.startswith(inside))):
            last = key
            continue  # its folder is told already
        if len(found) == num_keys:
            truncated = True
            break
        folder, last = inside, key
        one = objects.get(key)
        if inside:
            name = key_text(inside, encoded=encoded)
            found.append(("CommonPrefixes", [("Prefix", name)]))
        elif one is not None:
            found.append(("Contents", _told(one, encoded=encoded)))
    next_page: list[tuple[str, Content]] = []
    if truncated:
        next_page = [("NextContinuationToken", base64.urlsafe_b64encode(last.encode()).decode())]
    coding: list[tuple[str, Content]] = [("EncodingType", "url")] if encoded else []
    return document("ListBucketResult", [
        ("Name", bucket), ("Prefix", key_text(prefix, encoded=encoded)), *coding,
        ("KeyCount", len(found)), ("MaxKeys", num_keys),
        ("IsTruncated", "true" if truncated else "false"), *next_page, *found,
    ])  # fmt: skip


def uploads_listed(
    bucket: str,
    uploads: Sequence[Upload],
    *,
    prefix: str,
    after: tuple[str, str],
    num_uploads: int,
    encoded: bool,
) -> Answer:
    """One page of `ListMultipartUploads`, in the order of `uploads`.

    after: (key, id of an upload) at which the page before ended.
    """
    matching = [one for one in uploads if one.key.startswith(prefix)]
    key, upload_id = after
    if key:
        ids = [(one.key, one.id) for one in matching]
        past = ids.index(after) + 1 if after in ids else None
        matching = (
            matching[past:]
            if past is not None
            else [one for one in matching if one.key > key or (upload_id and one.key == key)]
        )
    page = matching[:num_uploads]
    told: list[tuple[str, Content]] = [
        ("Upload", [
            ("Key", key_text(one.key, encoded=encoded)), ("UploadId", one.id),
            ("Initiated", time_text(one.begun)),
        ])
        for one in page
    ]  # fmt: skip
    truncated = len(matching) > len(page)
    markers: list[tuple[str, Content]] = []
    if truncated and page:
        markers = [
            ("NextKeyMarker", key_text(page[-1].key, encoded=encoded)),
            ("NextUploadIdMarker", page[-1].id),
        ]
    coding: list[tuple[str, Content]] = [("EncodingType", "url")] if encoded else []
    return document("ListMultipartUploadsResult", [
        ("Bucket", bucket), *coding, ("IsTruncated", "true" if truncated else "false"),
        *markers, *told,
    ])  # fmt: skip


def _told(one: StoredObject, *, encoded: bool) -> Content:
    return [
        ("Key", key_text(one.key, encoded=encoded)),
        ("LastModified", time_text(one.modified)),
        ("ETag", f'"{one.etag}"'),
        ("Size", one.num_bytes),
        ("StorageClass", "STANDARD"),
    ]
