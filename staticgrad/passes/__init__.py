"""Rewrites of the array graph: each pass takes a graph and returns an equal, better one."""
