"""The backend of lm-eval: its requests over this server's protocol."""
