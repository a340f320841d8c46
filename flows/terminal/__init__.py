"""What the command line needs of a terminal: what moves in it, what fits, what help lists."""
