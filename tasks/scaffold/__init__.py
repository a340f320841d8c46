"""New projects: what is seen in given data or code, and a config and stubs that train on it."""
