"""One file per format of checkpoint. Each turns its tensor names into ours and says what no tensor shows."""
