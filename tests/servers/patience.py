"""How long tests wait for what must happen. No promise of speed: a busy machine may be many times slower than ours."""

PATIENCE_SECONDS = 120.0
#: For what is to happen at once, or by a short deadline, where its being forgotten would take for ever.
PROMPT_SECONDS = 30.0
