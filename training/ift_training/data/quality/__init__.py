"""Which records are worth training on: filters that say what is wrong, thresholds, a page to review what is left."""
