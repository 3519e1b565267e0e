"""The parts of nnU-Net and MONAI that are compared with ours, each built as its own documents say."""
