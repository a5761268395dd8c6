"""One HTML page about a run, or about several: everything it shows was computed before and stands in the run directory.

`gather` reads what is there (nothing of it is trusted), `parts` and `compare` make the sections, `curves` what can be
hovered, `pictures` fits the images in, `markup` and `page` make the page of it, and `write` says where it goes.
"""
