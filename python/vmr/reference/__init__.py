"""Every operator of vmr in plain PyTorch, to be read beside the papers.

The functions take the arguments of the operators' schemas (cpp/ops). They are the tests' oracle, and
what runs on a device for which a build has no kernels; they are not made to be fast.
"""
