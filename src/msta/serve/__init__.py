"""``msta serve``: one frozen backbone and many adapters behind HTTP.

gate.py      middleware: keys, the number of requests at a time, their size
app.py       the routes
workers.py   a pool of decoding processes (worker.py runs in each)
adapters.py  loads adapters, and evicts the least recently used
batching.py  computes requests that arrive together in one batch
server.py    starts the service, and stops it without losing an answer
"""
