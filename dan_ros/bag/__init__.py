"""Convert recorded bags of images to bags of expressions, without ROS."""
