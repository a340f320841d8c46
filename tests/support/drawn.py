"""What a figure shows: its panels by name, and the colours of its pixels."""

import matplotlib as mpl
import numpy as np


class Drawn:
    """A figure once it is drawn."""

    def __init__(self, figure):
        self.figure = figure
        figure.canvas.draw()
        self.pixels_HWC = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255
        self.height = len(self.pixels_HWC)

    def panel(self, name):
        return next(panel for panel in self.figure.axes if panel.get_label() == name)

    def colour(self, panel, x, y):
        """Red, green and blue at that place of a panel, each from 0 to 1."""
        column, above_bottom = panel.transData.transform((x, y))
        return self.pixels_HWC[self.height - 1 - int(above_bottom), int(column)]

    def shows(self, panel, x, y, colour):
        wanted = mpl.colors.to_rgb(colour)
        return bool(np.allclose(self.colour(panel, x, y), wanted, atol=0.02))

    def box(self, colour):
        """Left, top, right and bottom of all pixels of that colour, counted from the top left."""
        is_it_HW = np.isclose(self.pixels_HWC, mpl.colors.to_rgb(colour), atol=0.01).all(axis=-1)
        rows, columns = np.nonzero(is_it_HW)
        return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1

    def box_of_text(self, text):
        """The same of a text of the figure."""
        extent = text.get_window_extent()
        return extent.x0, self.height - extent.y1, extent.x1, self.height - extent.y0


def share_of_map(colour, name="viridis"):
    """Where on a colour map a colour is: 0 its lowest, 1 its highest."""
    steps = mpl.colormaps[name](np.linspace(0, 1, 256))[:, :3]
    return float(np.argmin(np.abs(steps - np.asarray(colour)[:3]).sum(axis=1)) / 255)
