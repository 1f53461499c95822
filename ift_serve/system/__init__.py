"""This process and the machine it runs on: logs, memory, processors. Below everything."""
