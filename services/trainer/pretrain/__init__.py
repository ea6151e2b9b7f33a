"""Learning from the catalogue alone, before or in place of judgements."""
