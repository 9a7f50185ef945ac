# SPDX-License-Identifier: Apache-2.0
"""Training DAN as the paper does: losses, data sets, augmentation, recipes, the trainer."""
