"""Faults of data/."""

from support.mutants.mutant import Mutant, of

MUTANTS: tuple[Mutant, ...] = (
    *of(
        "data/hashing.py",
        "test_hashing.py",
        ("digest-without-its-kind", '["epochal", kind, value]', '["epochal", value]'),
        ("digest-of-one-digit-more", "SIGNIFICANT_DIGITS = 12", "SIGNIFICANT_DIGITS = 13"),
        ("content-parts-not-framed", "{len(tag)}:{tag}:{view.nbytes}:", "{tag}:"),
        ("second-draw-like-the-first", "again = repeats_N > 0", "again = repeats_N > 1"),
    ),
    *of(
        "data/store/retry.py",
        "test_retry.py",
        ("pause-never-grows", "min(2 * pause_s, MAX_PAUSE_S)", "min(pause_s, MAX_PAUSE_S)"),
        (
            "hurry-waits-as-long",
            "if self.hurried() else self.seconds",
            "if False else self.seconds",
        ),
        ("lost-answer-of-a-file", "and not source.exists():", "and source.exists():"),
    ),
    *of(
        "data/store/store.py",
        "test_store.py test_store_intact_reads.py test_store_contract.py",
        (
            "wrong-at-the-first-read",
            "if self._is_damaged(path, bytes_sha256(data), len(data), wrong):",
            "if True:",
        ),
        (
            "other-wrong-bytes-are-damage-too",
            "again = digest in wrong",
            "again = bool(wrong)",
        ),
        (
            "the-same-part-twice-is-damage",
            "if again and stored in {None, num_bytes}:",
            "if again:",
        ),
        (
            "read-again-from-memory",
            "            self._backend.forget(path)\n",
            "            pass\n",
        ),
        ("reads-without-end", "if len(wrong) == MAX_READS:", "if False:"),
        ("overlong-object-is-read", "if len(data) > max_bytes:", "if len(data) > max_bytes + 1:"),
        (
            "old-probes-stay",
            "time.time() - int(left[1]) > PROBE_S",
            "time.time() - int(left[1]) < -PROBE_S",
        ),
        (
            "store-without-exclusive-puts",
            "            pass\n        else:\n            raise BadStore(",
            "            pass\n        if False:\n            raise BadStore(",
        ),
    ),
    *of(
        "data/store/local.py",
        "test_local.py test_store_contract.py",
        ("put-replaces", "disk().link(source, target)\n", "os.replace(source, target)\n"),
        (
            "name-not-synced",
            "            raise\n        disk().sync(target.parent)",
            "            raise",
        ),
        (
            "bytes-not-synced",
            "            disk().sync(temporary)\n            self._link",
            "            self._link",
        ),
        (
            "handed-over-file-stays",
            "            disk().unlink(source)  # a second",
            "            # a",
        ),
    ),
    *of(
        "data/store/remote.py",
        "test_remote.py test_store_contract.py",
        ("s3-move-replaces", "if self.size(target) is not None:", "if False:"),
    ),
    *of(
        "data/store/s3.py",
        "test_s3.py test_store_contract.py",
        (
            "s3-put-replaces",
            'Body=body, IfNoneMatch="*", Metadata=metadata',
            "Body=body, Metadata=metadata",
        ),
        (
            "s3-upload-replaces",
            'MultipartUpload={"Parts": parts},\n                    IfNoneMatch="*",',
            'MultipartUpload={"Parts": parts},',
        ),
        ("s3-anothers-write-is-ones-own", ".get(MARK) == write.mark:", ".get(MARK):"),
        (
            "s3-other-bytes-are-ones-own",
            "if before and _checksum(source) == checksum else",
            "if before else",
        ),
        ("s3-lost-answer-is-an-error", "return bool(found[", "return False and bool(found["),
        ("s3-upload-is-not-begun-again", "error_code(error) in _ENDED:", "False:"),
        (
            "s3-parts-stay",
            'self._call("abort_multipart_upload", **upload)',
            "pass",
        ),
        (
            "s3-running-upload-is-aborted",
            'newest = max(newest, part["LastModified"])',
            "pass",
        ),
        (
            "s3-pauses-of-the-global-generator",
            '"retries": {"total_max_attempts": 1,',
            '"retries": {"total_max_attempts": 3,',
        ),
    ),
    *of(
        "data/store/local_disk.py",
        "test_local_disk.py",
        (
            "any-name-is-a-lock",
            "if _NAME.fullmatch(path.name.removesuffix(_SUFFIX)) is not None:",
            "if True:",
        ),
        ("users-folder-is-a-link", "status = folder.lstat()", "status = folder.stat()"),
        ("second-name-unlocked", "fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)", "pass"),
        ("link-is-a-lock", "os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK", "os.O_RDWR"),
    ),
    *of(
        "data/store/failures.py",
        "test_s3.py",
        ("skew-the-wrong-way", "'ahead of' if skew_s > 0", "'ahead of' if skew_s < 0"),
    ),
    *of(
        "data/documents.py",
        "test_documents.py",
        ("document-digest-unchecked", "if expected != data:", "if len(expected) != len(data):"),
        ("document-of-too-many-levels", "if depth > MAX_DEPTH:", "if depth > MAX_DEPTH + 1:"),
    ),
    *of(
        "data/store/hashed_files.py",
        "test_hashed_files.py",
        (
            "small-pieces-at-the-end-lost",
            "    if gathered:\n        yield memoryview(gathered)\n\n\ndef _write",
            "\n\ndef _write",
        ),
        ("checksum-without-the-end", "checksum.update(view[:filled])", "pass"),
        ("short-write-goes-on-at-its-start", "block = block[count:]", "block = block[:0]"),
    ),
    *of(
        "data/stage_store/stages.py",
        "test_stages.py",
        (
            "artifact-digest-unchecked",
            "if bytes_sha256(data) != artifact.sha256:",
            "if len(data) != artifact.size:",
        ),
        (
            "record-of-other-parents-stands",
            "if standing.consumed != record.consumed:",
            "if len(standing.consumed) != len(record.consumed):",
        ),
        (
            "other-result-stands",
            "if dump_record(standing) == dump_record(record):",
            "if standing.artifacts == record.artifacts:",
        ),
        (
            "rejected-record-stays",
            'paths, reason = (f"{stage_folder(record.key)}/{RECORD}", path), f"{name}',
            'paths, reason = (path,), f"{name}',
        ),
    ),
    *of(
        "data/stage_store/status.py",
        "test_stages.py",
        ("short-artifact-is-done", "elif size != artifact.size:", "elif size > artifact.size:"),
        (
            "missing-artifact-is-pruned",
            "for name in absent if name not in pruned]",
            "for name in absent if not pruned]",
        ),
    ),
    *of(
        "data/stage_store/records.py",
        "test_stages.py",
        (
            "record-of-another-stage",
            "stored_format != FORMAT or record.key != key",
            "stored_format != FORMAT",
        ),
    ),
    *of(
        "data/stage_store/mid_epoch.py",
        "test_mid_epoch.py",
        ("one-commit-to-fall-back-to", "KEEP = 2 ", "KEEP = 1 "),
        ("later-commits-are-deleted", "if path < written and path", "if path"),
        ("damaged-tensors-stand", "if not self._is_intact(tensors.checksum):", "if False:"),
        (
            "commit-under-another-number",
            "and f\"{manifest['micro_steps']:012d}.json\" == path",
            "and f\"{manifest['micro_steps']:012d}.json\" >= path",
        ),
    ),
    *of(
        "data/tables/writing.py",
        "test_writing.py",
        ("pages-without-checksums", "write_page_checksum=True", "write_page_checksum=False"),
        ("last-of-each-row", "is_first[1:] = sorted_N", "is_first[:-1] = sorted_N"),
        ("numbers-wrap-around", 'if wanted.kind in "iu" and not', 'if wanted.kind in "u" and not'),
        (
            "rows-of-full-groups-only",
            "whole = rows if all_rows else",
            "whole = 0 * rows if all_rows else",
        ),
    ),
    *of(
        "data/tables/reading.py",
        "test_reading.py test_writing.py",
        ("unsorted-pieces", "self._last is None or ids_N[0] > self._last", "True"),
        ("take-through-stops-before", 'side="right")) for ids_B', 'side="left")) for ids_B'),
    ),
    *of(
        "data/tables/checks.py",
        "test_writing.py",
        ("newer-table-is-read", "if int(version) > schema.version:", "if False:"),
        (
            "wrong-column-type",
            "if kind != arrow_type(column):",
            "if str(kind) < str(arrow_type(column)):",
        ),
    ),
    *of(
        "data/samples/table.py",
        "test_table.py",
        ("streak-survives-a-mistake", "np.where(easy_S, streak_S, 0)", "streak_S"),
        (
            "learning-counts-as-forgetting",
            "was_correct_S & ~correct_S",
            "was_correct_S ^ correct_S",
        ),
        ("scored-samples-count-as-trained", 'table["epoch_seen"] = epoch_seen_N', "pass"),
        (
            "label-of-the-data-set-wins",
            'np.where(table["label"] < 0, stated_N',
            "np.where(stated_N >= 0, stated_N",
        ),
    ),
    *of(
        "data/samples/scores.py",
        "test_scores.py",
        ("variability-of-the-mean", "- mean_N**2", "- mean_N"),
        ("forgotten-are-never-right", '& (columns["forget_count"] == 0)', ""),
    ),
)
