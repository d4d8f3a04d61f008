"""One file per format of checkpoint. Each translates tensor names into ours and adds what no tensor shows."""
