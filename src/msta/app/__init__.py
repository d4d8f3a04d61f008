"""``msta app``: the library in a browser. Predict, train, search.

models.py      the backbone, and the adapters that can be picked on it
predicting.py  a video -> classes, a timeline, an explanation
clips.py       labelled clips as a browser gives them -> a data set
training.py    runs of msta train, one at a time: begun, watched, stopped, gone on with
searching.py   a sentence -> moments in a folder
render.py      what they found -> HTML (templates/)
layout.py      the page; page.py, predict_tab.py, train_tab.py, search_tab.py: which button calls what
server.py      starting it
"""
