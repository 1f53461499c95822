"""An engine, opened: in a process of its own or in a thread. The one room that knows both of its sides."""
