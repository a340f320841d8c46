"""The process in which a tracker beside MLflow lives.

It reads one JSON document a line on standard input and answers each on the descriptor it is given:
`{"open": …}` first, then `{"log": [[key, step, ms, value], …]}`, at last `{"close": status}`. An
answer is `{}`, or `{"error": …}` of what the tracker raised; then nothing follows.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from epochal.data.traces import failure_text
from epochal.data.types import Target
from epochal.tasks.trackers.tracker import RunInfo
from epochal.tasks.tracking.points import Row
from epochal.tasks.user_code.targets import call_target


def _serve(place: str, answers: int) -> None:
    tracker: Any = None
    for line in sys.stdin.buffer:
        document, answer = json.loads(line), {}
        try:
            if "open" in document:
                run, target = RunInfo(**document["run"]), Target.model_validate(document["open"])
                tracker = call_target(target, field=place, folder=Path(run.folder))
                tracker.open(run)
            elif "log" in document:
                tracker.log([Row(*row) for row in document["log"]])
            else:
                tracker.close(document["close"])
        except Exception as error:  # noqa: BLE001 - a library's or a user's code raises anything
            answer = {"error": failure_text(error)}
        os.write(answers, json.dumps(answer).encode() + b"\n")
        if answer or "close" in document:
            return


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0)  # whatever the tracker has started may not keep it
