"""What a store knows of a run: plans, facts, records, survey, summary, explain, find."""
