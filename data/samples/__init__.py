"""The sample table and scores that follow from it."""
