"""Evaluation of instruction adherence over the wire: requests that survive failures, tasks, scores and reports."""
