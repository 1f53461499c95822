"""Training the embedded model from scratch: recipe, tokenizer, corpus, optimisation, evaluation, model card."""
