"""An S3 server for tests: its objects are files, and its requests fail where a test says so."""

from epochal.data.testing.s3.faults import RequestFault
from epochal.data.testing.s3.server import S3Server

__all__ = ["RequestFault", "S3Server"]
