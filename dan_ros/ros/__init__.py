"""The ROS node. The only room of the package that imports rclpy."""
