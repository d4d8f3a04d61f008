"""``msta app``: the library in a browser. Predict, train, search.

models.py      the backbone and its adapters
predicting.py  a video -> classes, a timeline, an explanation
clips.py       uploaded clips -> a data set
training.py    runs of msta train: start, watch, stop and resume them
searching.py   a sentence -> moments in a folder
render.py      results -> HTML (templates/)
page.py        what the tabs share; predict_tab.py, train_tab.py, search_tab.py: one tab each
server.py      builds the page and serves it
"""
