"""Traced functions as objects: what a call looks up, records, compiles and returns."""
