"""The example that tells a person of a run that ended badly and of a spike."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from support.runs.machine import wait_for
from support.runs.project import environment

EXAMPLE = Path(__file__).parents[3] / "examples" / "automations" / "tell.py"

pytestmark = [pytest.mark.server, pytest.mark.slow]

# One update's logits are wrong by far, of samples that were right too: its loss is large.
SPIKY = """
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(6, 3)
            self.calls = 0

        def forward(self, x):
            self.calls += self.training
            return self.head(x) * (-1000.0 if self.calls == 40 and self.training else 1.0)
"""


@pytest.fixture
def heard():
    """What somebody posts to a web server of the test, and its address."""
    bodies = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield bodies, f"http://127.0.0.1:{server.server_port}/hook"
        server.shutdown()


def test_a_person_hears_of_a_failure_with_its_cause_and_of_a_spike(deployed, heard):
    bodies, url = heard
    with environment(PREFECT_API_URL=deployed.api):
        for _ in range(2):  # the second time it replaces them
            subprocess.run([sys.executable, "-P", str(EXAMPLE), url], check=True)
    broken = deployed.project.folder / "broken"
    broken.touch()
    try:
        run = deployed.run(name="heard-of", seed=21)
        assert deployed.wait(run, "FAILED", "COMPLETED", "CRASHED")["state_type"] == "FAILED"
    finally:
        broken.unlink()
    wait_for(lambda: bodies)
    assert "heard-of@1" in bodies[0]["text"]
    assert "the machine room is on fire" in bodies[0]["text"]
    assert f"/runs/flow-run/{run}" in bodies[0]["text"]
    deployed.project.write("model.py", SPIKY)
    # Epochs of 45 updates: the record of an epoch counts its spikes, whatever was shown live.
    small = {"batch_size": 4, "drop_last": True}
    run = deployed.run(name="spiky", seed=22, gradients={"clip_norm": 1.0}, loader=small)
    deployed.wait(run, "FAILED", "COMPLETED", "CRASHED")
    wait_for(lambda: len(bodies) > 1)
    assert "spiky@1, epoch" in bodies[1]["text"]
    assert "times the median" in bodies[1]["text"] or "gradient norm" in bodies[1]["text"]
