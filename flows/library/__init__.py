"""The commands as functions, and how what they give is shown in a notebook and in a console."""
