"""The processes of one training under torch.distributed, each of which runs the whole program: what they tell one
another. Everything travels as numbers in tensors; nothing is pickled, as torch's collectives of objects are."""
