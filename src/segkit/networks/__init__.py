"""Networks: image to logits, in two or three dimensions, at any input size.

The contract of every network here:

    forward(image)  in evaluation: logits (B, K, *S); in training with deep supervision: a list of logits, finest
                    first, each at its own resolution. Always logits, no nonlinearity.
    num_heads       length of that list
    level_strides   image voxels to one voxel of each of its levels, by axis
    divisor         what the grid has to be divisible by inside; any input is padded and cropped to it
"""
