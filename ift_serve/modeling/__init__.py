"""The instruction-aware model: prompts to tokens and segments, attention routing, adapters."""
