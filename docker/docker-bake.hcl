# SPDX-License-Identifier: Apache-2.0
#
#   docker buildx bake -f docker/docker-bake.hcl              # images for CPUs: humble, jazzy, lyrical
#   docker buildx bake -f docker/docker-bake.hcl desktop      # Jazzy with TensorRT
#   docker buildx bake -f docker/docker-bake.hcl --print      # only show what would be built

variable "NAME" {
  default = "dan_ros"
}

group "default" {
  targets = ["cpu"]
}

target "cpu" {
  matrix = {
    distribution = ["humble", "jazzy", "lyrical"]
  }
  name       = "cpu-${distribution}"
  context    = "."
  dockerfile = "docker/Dockerfile"
  args = {
    ROS_DISTRO = distribution
  }
  tags = ["${NAME}:${distribution}"]
}

target "desktop" {
  context    = "."
  dockerfile = "docker/desktop.Dockerfile"
  tags       = ["${NAME}:desktop"]
}
