"""The primer of computational graphs: a network written as expressions, trained before one's eyes."""

from staticgrad.primer.expression_graph import ExpressionGraph
from staticgrad.primer.training import ExpressionTraining

__all__ = ["ExpressionGraph", "ExpressionTraining"]
