"""Training DAN as the paper does: losses, data sets, augmentation, recipes, the trainer."""
