"""What every package stands on: errors, files that appear whole, and storage. The standard library alone."""
