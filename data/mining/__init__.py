"""From table and observations to the next plan."""
