"""Single objects, still or moving, from trained networks: `run.generate`.

What a user asks (`config`) goes through files (`inputs`, `sequence_inputs`, by `input_kinds`) and a network
(`still_shapes`, `rooms`, `sequences`, by `generator`) to meshes, animations and pictures (`results`).
"""
