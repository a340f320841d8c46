"""TensorBoard and trackio as trackers. What they need is imported when one is made."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from epochal.data.errors import ConfigError
from epochal.tasks.trackers.tracker import RunInfo
from epochal.tasks.tracking.points import Row


class TensorBoard:
    """Event files in `folder`/<name>@<generation>: `tensorboard --logdir` shows all runs of it.

    folder: relative to the config's. What comes again after a kill is a point twice at one step,
    of the same value. No TensorFlow and no torch is needed.
    """

    def __init__(self, folder: str = "tensorboard") -> None:
        try:
            import tensorboard  # noqa: F401
        except ModuleNotFoundError as error:
            raise _not_installed("tensorboard") from error
        self._folder = folder
        self._writer: Any = None

    def open(self, run: RunInfo) -> None:
        """Begins an event file, with the parameters as a text."""
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(Path(run.folder) / self._folder / run.reference))
        rows = [f"| {name} | {value} |" for name, value in run.params.items()]
        self._text("config", "\n".join(["| parameter | value |", "|---|---|", *rows]))

    def _text(self, tag: str, text: str) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING

        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        tensor = TensorProto(dtype=DT_STRING, tensor_shape=shape, string_val=[text.encode()])
        plugin = SummaryMetadata.PluginData(plugin_name="text")
        value = Summary.Value(
            tag=f"{tag}/text_summary", metadata=SummaryMetadata(plugin_data=plugin), tensor=tensor
        )
        self._writer.add_event(Event(summary=Summary(value=[value])))

    def log(self, points: Sequence[Row]) -> None:
        """Writes them and waits until they are in the file."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        for point in points:
            value = Summary.Value(tag=point.key, simple_value=point.value)
            self._writer.add_event(
                Event(
                    wall_time=point.timestamp_ms / 1000,
                    step=point.step,
                    summary=Summary(value=[value]),
                )
            )
        self._writer.flush()

    def close(self, status: str) -> None:  # noqa: ARG002 - an event file has no place for it
        """Ends the file."""
        self._writer.close()


class Trackio:
    """A run of trackio, in its local database. project: the run's name if none is given.

    Of its module only `init`, `log` and `finish` are used. Metrics of one step go together.
    """

    def __init__(self, project: str | None = None) -> None:
        try:
            import trackio
        except ImportError as error:
            raise _not_installed("trackio") from error
        self._trackio: Any = trackio
        self._project = project

    def open(self, run: RunInfo) -> None:
        """Begins the run, or goes on with the one of that name."""
        takes = inspect.signature(self._trackio.init).parameters
        more = {"resume": "allow"} if "resume" in takes else {}
        self._trackio.init(
            project=self._project or run.name,
            name=run.reference,
            config=dict(run.params),
            **more,
        )

    def log(self, points: Sequence[Row]) -> None:
        """Hands on all metrics of a step at once."""
        by_step: dict[int, dict[str, float]] = {}
        for point in points:
            by_step.setdefault(point.step, {})[point.key] = point.value
        has_step = "step" in inspect.signature(self._trackio.log).parameters
        for step, metrics in sorted(by_step.items()):
            if has_step:
                self._trackio.log(metrics, step=step)
            else:  # its first versions count calls instead
                self._trackio.log({**metrics, "update": step})

    def close(self, status: str) -> None:  # noqa: ARG002 - trackio has no place for it
        """Has it write what it still holds."""
        self._trackio.finish()


def _not_installed(name: str) -> ConfigError:
    return ConfigError(
        f"tracking.also: {name} does not import; install it (`pip install 'epochal[{name}]'`), or "
        "leave it out"
    )
