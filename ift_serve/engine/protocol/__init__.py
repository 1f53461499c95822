"""Messages between the server process and the engine process, by kind, and the page of progress they share."""
