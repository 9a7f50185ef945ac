# SPDX-License-Identifier: Apache-2.0
#
# After `make build`: `. ./env.sh` gives any bash a shell in which dan-ros, python3 with dan_ros and
# dan_ros.msg, and install/dan_ros/lib/dan_ros/dan_node work. Keeps what is on PYTHONPATH and PATH.

_dan_ros_root="$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")" && pwd)"

# colcon's scripts read variables that may be unset.
case $- in *u*) _dan_ros_u=1; set +u ;; *) _dan_ros_u= ;; esac

if [ -d "$_dan_ros_root/.venv" ] && [ -z "${ROS_DISTRO:-}" ]; then
  export PATH="$_dan_ros_root/.venv/bin:$PATH"
  export AMENT_PREFIX_PATH="$_dan_ros_root/.venv${AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}"
else # what the distribution lacks; Debian's pip has its own folders
  for _dan_ros_packages in "$_dan_ros_root"/install/python/{,local/}lib/python3*/{site,dist}-packages; do
    [ -d "$_dan_ros_packages" ] && export PYTHONPATH="$_dan_ros_packages${PYTHONPATH:+:$PYTHONPATH}"
  done
fi
if [ -f "$_dan_ros_root/install/local_setup.bash" ]; then
  . "$_dan_ros_root/install/local_setup.bash"
else
  echo "env.sh: nothing is built yet, run \`make build\` in $_dan_ros_root" >&2
fi

_dan_ros_origin="$(cat "$_dan_ros_root/install/dan_ros_origin" 2>/dev/null || true)"
case "${ROS_DISTRO:-}/$_dan_ros_origin" in
  */ | "/"*" wheels"* | "${ROS_DISTRO:-}/${ROS_DISTRO:-} distribution"*) ;;
  *) echo "env.sh: install/ was built with: $_dan_ros_origin. Run \`make build\` in this shell." >&2 ;;
esac

[ -n "$_dan_ros_u" ] && set -u
unset _dan_ros_root _dan_ros_u _dan_ros_packages _dan_ros_origin
true
