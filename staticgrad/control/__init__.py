"""Control flow that depends on values: branches and loops as operations whose bodies are graphs."""
