"""Distributed stages on Ray: preprocess, train, reconstruct, evaluate; and the command line."""
