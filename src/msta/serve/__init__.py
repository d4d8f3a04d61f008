"""``msta serve``: one frozen backbone and many adapters behind HTTP.

gate.py      who may come in, how many at a time, and how much they may bring
app.py       the routes
workers.py   decoding, in processes that may die (worker.py is what runs there)
adapters.py  loading, and evicting what was not asked for longest
batching.py  requests that come together are answered together
server.py    starting, and stopping without losing an answer
"""
