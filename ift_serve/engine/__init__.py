"""Requests to tokens: scheduler, paged KV cache, model runner, sampler."""
