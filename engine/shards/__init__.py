"""An update dealt to shards: their sums have one shape for any number of processes."""
