"""What is asked and how answers are judged, task by task."""
