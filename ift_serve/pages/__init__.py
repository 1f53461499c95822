"""Pages of one text that ask nobody for anything: what each of them needs. Below everything."""
