"""RunConfig, its parts, YAML and --set."""
