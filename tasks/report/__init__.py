"""For people: HTML page, curves, tables, pictures, landscape."""
