"""How the server runs on engines that distribute: Ray Serve."""
