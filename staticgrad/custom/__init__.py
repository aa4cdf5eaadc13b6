"""Derivatives that the user gives, or that a theorem gives: rules, solvers, fixed points, foreign functions."""
