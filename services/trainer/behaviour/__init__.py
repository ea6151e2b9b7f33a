"""From what shoppers did to judgements: how well an item answers a query, as those say who saw it.

log          the events of a running `user_events` …
archive      … on disk, as Parquet, gone on with from where the last run ended
visits       who is no shopper
by_query     the events of searches, checked one by one, sorted into files by query
places       how often each item of a query was shown and taken, by its place in the list
propensity   how likely a place is to be looked at, learnt from the log itself
grading      what that says about each pair, as a grade
judge        all of these in a row
"""
