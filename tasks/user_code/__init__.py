"""Import, call and fingerprint what the config names; build the parts."""
