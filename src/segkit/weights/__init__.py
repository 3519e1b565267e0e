"""Weights from elsewhere: reading files that nnU-Net, segkit or others wrote, fitting them to a network, writing back.

    read_weights(path)    a file or folder to named tensors, with what is known of their channels, classes and axes
    transfer(...)         these tensors to the state of a network, and a table of what became of each
    nnunet                nnU-Net's names, axes and checkpoint, both ways

No file is trusted: what is read is tensors and plain values, and nothing in it is executed.
"""
