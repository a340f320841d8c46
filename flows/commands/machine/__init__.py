"""Commands about this machine: does it all work here, what runs here, and what does it say."""
