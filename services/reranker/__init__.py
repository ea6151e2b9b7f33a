"""(query, item) → relevance: a cross-encoder, or late interaction where none has been trained."""
