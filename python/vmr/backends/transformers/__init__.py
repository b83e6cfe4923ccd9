"""Models of the transformers and sentence-transformers libraries: a folder, or an id on the hub.

``transformers:MODEL,option=value,...``; the options are those of the part that the model plays. The
libraries are imported by what needs them, the weights loaded when a model is first used.
"""
