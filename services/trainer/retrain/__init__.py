"""Goes on learning: what was judged since the live model learnt, with a sample of what it knows already."""
