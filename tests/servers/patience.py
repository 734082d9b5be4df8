"""How long tests wait for what must happen. No promise of speed: a busy machine may be many times slower than ours."""

PATIENCE_SECONDS = 120.0
