"""Cross-encoders: fine-tuned on judgements, and distilled into few layers that a CPU can afford."""
