"""How well what a server serves follows instructions: requests that survive failures, tasks, scores and reports."""
