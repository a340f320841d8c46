"""The samples of a page: who is kept, their map, the hardest and the suspects with pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from epochal.data.errors import EpochalError
from epochal.tasks.printable import printable
from epochal.tasks.report.page.charts.curve import Curve
from epochal.tasks.report.page.charts.lines import Line, draw_lines
from epochal.tasks.report.page.charts.own_axes import draw_points
from epochal.tasks.report.page.charts.spans import draw_heat
from epochal.tasks.report.page.curves import MAX_GROUP_POINTS, MAX_POINTS
from epochal.tasks.report.page.html import Section, Table, Tile
from epochal.tasks.report.page.shown_run import Page, ReadRun
from epochal.tasks.report.samples import SHEET_SAMPLES, left_out_rows, view_samples
from epochal.tasks.report.tables import MAX_PICTURE_ROWS, KeptShares, spread
from epochal.tasks.run_data.sample_names import SampleNames

if TYPE_CHECKING:
    import numpy.typing as npt

    from epochal.tasks.report.samples import SampleView

# M samples on a map, C classes, R rows of a heat map, K columns of it

MAX_LEFT_OUT = 1000
MAX_MAP_POINTS = 12_000
"""Samples that the data maps of a page draw."""
MAX_CLASS_LINES = 20
"""Classes with a line of their own; more make a heat map."""
MAX_HEAT_ROWS = 100
MAX_HEAT_COLUMNS = 240
LARGEST_SIDE = 160
"""Pixels of a sample's picture: a larger image is made smaller for the page."""
PIXELS_SHOWN = 96
"""Sides up to which an image's pixels are to be seen as squares; larger ones are smoothed."""


def kept_samples(page: Page) -> Iterator[Section]:
    """The share that epochs train on, of all; of a single run by class too."""
    lines, names = [], ["all"]
    heat = None
    note = "The share of the samples that an epoch trains on, drawn where it begins."
    for number, run in enumerate(page.runs):
        kept = run.tables.kept()
        if kept is None:
            continue
        shares = [(0, 1.0), *zip(kept.epochs_E, kept.share_E, strict=True)]
        epochs, values = zip(*spread(shares, most=MAX_POINTS), strict=True)
        lines.append(Line(_curve("all", epochs, values), page.starts(run, epochs), number))
        if page.single and epochs[-1] >= run.found.config.epochs:
            note = f"{note} The last one is for an epoch {epochs[-1]}, which is not in the run."
        if not page.single:
            continue
        known = [place for place, label in enumerate(kept.labels_C) if label >= 0]
        classes = [
            run.names.class_of(kept.labels_C[place]) or f"class {kept.labels_C[place]}"
            for place in known
        ]
        if 1 < len(known) <= MAX_CLASS_LINES:
            for place, name in zip(known, classes, strict=True):
                known_K = np.flatnonzero(np.isfinite(kept.share_KC[:, place])).tolist()
                there = spread(known_K, most=MAX_GROUP_POINTS)
                planned = [kept.class_epochs_K[row] for row in there]
                curve = _curve(name, planned, kept.share_KC[there, place].tolist())
                lines.append(Line(curve, page.starts(run, planned), number, len(names)))
                names.append(name)
        elif known:
            heat = _heat_of_classes(page, run, kept, known, classes)
    chart = draw_lines(page.charts, "Kept samples", lines, names=names, percent=True)
    if chart is not None:
        yield Section("Kept samples", note, chart=chart)
    if heat is not None:
        yield heat


def _heat_of_classes(
    page: Page, run: ReadRun, kept: KeptShares, known: Sequence[int], classes: Sequence[str]
) -> Section:
    share_CK = kept.share_KC[:, known].T
    mean_C = np.array([_mean(row_K) for row_K in share_CK])
    order_C = np.argsort(-mean_C, kind="stable")
    together = -(-len(known) // MAX_HEAT_ROWS)
    parts = [order_C[at : at + together] for at in range(0, len(known), together)]
    columns = spread(range(len(kept.class_epochs_K)), most=MAX_HEAT_COLUMNS)
    values_RK = np.array([[_mean(share_CK[part, column]) for column in columns] for part in parts])
    epochs = [kept.class_epochs_K[column] for column in columns]
    chart = draw_heat(
        page.charts,
        "Kept samples by class",
        [classes[part[0]] if together == 1 else _from_to(classes, part.tolist()) for part in parts],
        values_RK,
        left=page.starts(run, epochs),
        right=page.starts(run, [*epochs[1:], epochs[-1] + 1]),
        percent=True,
    )
    each = f" {together} classes share a row." if together > 1 else ""
    return Section(
        "Kept samples by class", f"Those that are kept most at the top.{each}", chart=chart
    )


def samples_map(page: Page, run: ReadRun) -> Iterator[Section]:
    """The data map, or why there is none."""
    from epochal.data.samples.scores import STATES, data_map

    title = "Data map"
    if not run.tables.trained:
        return
    rows = run.tables.picture_rows
    if rows > MAX_PICTURE_ROWS:
        limit = f"more than {MAX_PICTURE_ROWS:,}"
        yield Section(title, f"Not drawn: it would read {rows:,} rows, {limit}.")
        return
    scores = run.tables.scores
    places = None if scores is None else data_map(scores)
    if scores is None or places is None:
        why = "no sample has been seen in two epochs with a probability of classes"
        yield Section(title, f"Not drawn: {why}.")
        return
    most = MAX_MAP_POINTS // len(page.runs)
    chosen = np.argsort(places.lot_M, kind="stable")[:most]
    table_rows = places.row_M[chosen]
    labels = scores["label"][table_rows].tolist()
    ids = scores["sample_id"][table_rows].tolist()
    state = places.state_M[chosen]
    chart = draw_points(
        page.charts,
        title,
        {name: np.flatnonzero(state == number) for number, name in enumerate(STATES)},
        {
            "x": places.variability_M[chosen],
            "y": places.mean_p_true_M[chosen],
            "sample": [printable(run.names.texts.get(one) or str(one)) for one in ids],
            "class": [printable(_class_text(run.names, label)) for label in labels],
        },
        [int((places.state_M == number).sum()) for number in range(len(STATES))],
    )
    drawn = f" {len(chosen):,} of {len(places):,} samples are drawn." * (len(chosen) < len(places))
    out = f" {places.left_out:,} were seen less than twice." if places.left_out else ""
    note = (
        "Mean and standard deviation of the label's probability over the epochs "
        f"(Swayamdipta et al. 2020).{drawn}{out}"
    )
    yield Section(title, note, chart=chart)


def sheet(run: ReadRun, order: str, title: str) -> Iterator[Section]:
    """The first samples of an order as pictures; as a table where there are none."""
    if not run.tables.trained:
        return
    view = view_samples(
        run.found, order=order, count=SHEET_SAMPLES, tables=run.tables, names=run.names
    )
    note = "; ".join([view.caption, *view.notes])
    why = run.images
    if not isinstance(why, str):
        try:
            images = why([sample["sample_id"] for sample in view.samples])
        except EpochalError as error:
            why = str(error)
        else:
            predicted, unknown = _predicted(run, view)
            tiles = _tiles(images, view, predicted)
            yield Section(title, f"{note}{unknown}", tiles=tiles, wide=True)
            return
    table = Table(view.columns, view.rows())
    note = f"{note}. No pictures: {why}"
    yield Section(title, note, table=table, wide=True)


def _predicted(run: ReadRun, view: SampleView) -> tuple[list[str], str]:
    """A line for each sample that names the class predicted, and what is to be said of them."""
    names, samples = run.names, view.samples
    classes: list[int | None] = [None] * len(samples)
    note, why = "", run.predictions
    if not isinstance(why, str):
        try:
            classes = why([sample["sample_id"] for sample in samples])
            note = "; predicted by the newest checkpoint"
        except EpochalError as error:
            why = str(error)
    if isinstance(why, str):
        note = f"; of wrong predictions the class is not known: {why}"
        # A prediction that was right has named the label.
        classes = [
            sample["label"] if sample["correct"] and sample["label"] >= 0 else None
            for sample in samples
        ]
    lines = [
        "predicted another" if label is None else f"predicted {_class_text(names, label)}"
        for label in classes
    ]
    if all(sample["label"] < 0 or sample["p_true"] is None for sample in samples):
        return [""] * len(samples), ""  # no classes at all
    return lines, note


def left_out(run: ReadRun) -> Iterator[Section]:
    """Samples that cannot be trained on."""
    rows = left_out_rows(run.names)
    if rows:
        cells = [
            [one["data"], str(one["position"]), one["path"] or "–", one["error"]]
            for one in rows[:MAX_LEFT_OUT]
        ]
        note = f"{len(rows)} samples cannot be trained on (loader.on_bad_sample: quarantine)."
        heads = ("data set", "position", "path", "cause")
        table = Table(heads, cells, words=True)
        yield Section("Samples left out", note, table=table, wide=True)


def _curve(name: str, epochs: Sequence[int], values: Sequence[float]) -> Curve:
    """A curve whose x are epochs: where those are it is told beside."""
    curve = Curve(name)
    for epoch, value in zip(epochs, values, strict=True):
        curve.add(float(epoch), value)
    return curve


def _mean(values: npt.NDArray[np.float64]) -> float:
    """The mean of the values that are not NaN (a table may lack a class); NaN if there is none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _from_to(classes: Sequence[str], part: Sequence[int]) -> str:
    return f"{classes[part[0]]} … {classes[part[-1]]}"


def _class_text(names: SampleNames, label: int) -> str:
    return names.class_of(label) or ("not known" if label < 0 else str(label))


def _tiles(
    images: Sequence[npt.NDArray[np.float32]], view: SampleView, predicted: Sequence[str]
) -> list[Tile]:
    from epochal.tasks.report.contact_sheet import captions

    tiles = []
    for image_HW3, caption, line in zip(images, captions(view), predicted, strict=True):
        source, (width, height) = _picture(image_HW3)
        small = max(image_HW3.shape[:2]) <= PIXELS_SHOWN
        *named, score = caption.split("\n")
        lines = [*named, *([line] if line else []), score]
        tiles.append(Tile(source, width, height, lines, small))
    return tiles


def _picture(image_HW3: npt.NDArray[np.float32]) -> tuple[str, tuple[int, int]]:
    """The image in an address; a large one as JPEG, and smaller."""
    from PIL import Image

    image = Image.fromarray((image_HW3 * 255).round().astype(np.uint8))
    kind = "png"
    if max(image.size) > PIXELS_SHOWN:
        kind = "jpeg"
        image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format=kind, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", image.size
