// SPDX-License-Identifier: Apache-2.0
//
// Log the expression of each face: how to subscribe in C++.
//
// package.xml needs <depend>dan_ros</depend>, CMakeLists.txt needs
//   find_package(dan_ros REQUIRED)
//   find_package(rclcpp REQUIRED)
//   add_executable(subscriber subscriber.cpp)
//   target_link_libraries(subscriber ${dan_ros_TARGETS} rclcpp::rclcpp)

#include <memory>

#include <dan_ros/msg/facial_expression_array.hpp>
#include <rclcpp/rclcpp.hpp>

using dan_ros::msg::FacialExpression;
using dan_ros::msg::FacialExpressionArray;

class Subscriber : public rclcpp::Node
{
public:
  Subscriber()
  : Node("expression_subscriber")
  {
    subscription_ = create_subscription<FacialExpressionArray>(
      "facial_expressions", 10,
      [this](const FacialExpressionArray & frame) {
        for (const auto & face : frame.faces) {
          if (face.expression != FacialExpression::UNKNOWN) {
            RCLCPP_INFO(
              get_logger(), "%s looks %s (%.0f %%)",
              face.face_id.c_str(), face.label.c_str(), 100 * face.confidence);
          }
        }
      });
  }

private:
  rclcpp::Subscription<FacialExpressionArray>::SharedPtr subscription_;
};

int main(int argc, char ** argv)
{
  rclcpp::init(argc, argv);
  rclcpp::spin(std::make_shared<Subscriber>());
  rclcpp::shutdown();
  return 0;
}
