"""From an optimised graph to source text: schedule, memory plan, loop IR, printers."""
