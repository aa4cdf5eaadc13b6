"""Differentiation and batching: graph in, graph out."""
