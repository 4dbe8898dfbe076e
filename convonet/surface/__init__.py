"""From a field on a lattice to a mesh: where to sample it, and marching cubes with integer vertex keys."""
