"""MLflow's server in this process, for its own pages and programs of this machine only.

`mlflow server` lets pages of every port of loopback write, and takes every `Host` that begins like
a private address; and its child binds a port by itself, which another program may have taken.
Run as `python -m epochal.flows.serve_mlflow`; `epochal up` starts it.
"""

from __future__ import annotations

import argparse
import os
import socket

from epochal.flows.environment import importing
from epochal.flows.servers import own_pages_only


def main() -> None:
    """Serves until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--descriptor", type=int, required=True, help="a listening socket")
    parser.add_argument("--store", required=True, help="the database, as MLflow writes it")
    parser.add_argument("--artifacts", required=True, help="the URL of the artifacts' folder")
    given = parser.parse_args()
    listening = socket.socket(fileno=given.descriptor)
    with importing():
        import uvicorn  # before MLflow, which looks whether it is there
        from mlflow.server import constants, handlers

        # What `mlflow server` hands to the process that serves.
        os.environ |= {
            constants.BACKEND_STORE_URI_ENV_VAR: given.store,
            constants.REGISTRY_STORE_URI_ENV_VAR: given.store,
            constants.ARTIFACT_ROOT_ENV_VAR: given.artifacts,
            constants.ARTIFACTS_DESTINATION_ENV_VAR: given.artifacts,
            constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        }
        from mlflow.server.fastapi_app import app
    handlers.initialize_backend_stores(given.store, given.store, given.artifacts)
    uvicorn.Server(uvicorn.Config(own_pages_only(app), log_level="info")).run(sockets=[listening])


if __name__ == "__main__":
    main()
