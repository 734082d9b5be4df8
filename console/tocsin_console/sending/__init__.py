"""What `tocsin send` does, step by step: request → recipients → plan → checks → publish → wait."""
