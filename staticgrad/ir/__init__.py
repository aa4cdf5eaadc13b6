"""The two intermediate representations: the array graph (`Aval`, `Op`, `Node`, `Graph`) and the loop IR (`loops`, `builder`).

Nothing here knows a concrete operation, a tracer or a compiler.
"""
