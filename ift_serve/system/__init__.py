"""This process and the machine it runs on: logs, memory, processors, files. Below everything."""
