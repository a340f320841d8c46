"""Files of data sets: listings, bytes from any storage, a local cache, decoded images."""
