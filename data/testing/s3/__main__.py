"""`python -m epochal.data.testing.s3 FOLDER --port N`: serves until it is ended."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from pathlib import Path

from epochal.data.testing.s3.faults import RequestFault, RequestPlan
from epochal.data.testing.s3.handler import CONTROL, serve


def main() -> None:
    """Serves, and prints the address on one line as soon as it can be asked."""
    parser = argparse.ArgumentParser(prog="python -m epochal.data.testing.s3", description=__doc__)
    parser.add_argument("folder", type=Path, help="of its objects; made if it is not there")
    parser.add_argument("--port", type=int, default=9000, help="of 127.0.0.1; 0: any free one")
    parser.add_argument("--bucket", action="append", default=[], help="made if it is not there")
    parser.add_argument("--faults", type=Path, help=f"a list, as a PUT to {CONTROL} has it")
    parser.add_argument(
        "--ends-with-stdin", action="store_true", help="ends when its standard input does"
    )
    options = parser.parse_args()
    faults = [] if options.faults is None else json.loads(options.faults.read_text())
    plan = RequestPlan(RequestFault(**one) for one in faults)
    server = serve(options.folder, port=options.port, plan=plan)
    for bucket in options.bucket:
        server.service.objects.make_bucket(bucket)
    if options.ends_with_stdin:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    sys.stdout.write(f"http://127.0.0.1:{server.server_port}\n")
    sys.stdout.flush()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


def _end_with_stdin() -> None:
    """Whoever has started this process is gone: so is it, at once."""
    while os.read(0, 1024):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
