"""From target features to a change of an image: VGG-19 as the feature map phi, and L-BFGS."""
