"""What every package stands on: the base of the errors, and files that appear whole. The standard library alone."""
