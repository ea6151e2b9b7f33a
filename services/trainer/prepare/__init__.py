"""From judgements and a catalogue to the Parquet files that training and evaluation read.

Sources give judgements as a lazy frame of `judgements.COLUMNS`; what follows does not know where they came from.
"""
