"""Training batches drawn from datasets: crops of scenes, single shapes, sequences."""
