"""Where the curves and pictures of a run go: VisualDL, TensorBoard, Weights & Biases, one file each."""
