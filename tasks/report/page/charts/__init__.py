"""The interactive charts of a page, by Bokeh: one document, in which most share an x axis."""
