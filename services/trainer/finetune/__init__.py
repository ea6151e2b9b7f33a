"""Fine-tuning on a prepared set. sentence-transformers trains; here is what it lacks, and the wiring."""
