// SPDX-License-Identifier: Apache-2.0
//
// Conditions for BehaviorTree.CPP 4 and Nav2: does somebody look at the robot, or show an expression?
// docs/behaviors.md shows how to build and use them.

#include <chrono>
#include <memory>
#include <string>

#include <behaviortree_cpp/bt_factory.h>
#include <dan_ros/msg/face_scene.hpp>
#include <rclcpp/rclcpp.hpp>

using dan_ros::msg::FaceScene;

// The type of "node" on the blackboard. Nav2 since Lyrical: nav2::LifecycleNode.
using RosNode = rclcpp::Node;

// Stores the last scene. The topic is latched, so the scene arrives even if it was published before.
class SceneCondition : public BT::ConditionNode
{
public:
  SceneCondition(const std::string & name, const BT::NodeConfig & config)
  : BT::ConditionNode(name, config)
  {
    auto node = config.blackboard->get<RosNode::SharedPtr>("node");
    // A separate callback group: tick() serves it, whatever the executor of the tree does.
    group_ = node->create_callback_group(rclcpp::CallbackGroupType::MutuallyExclusive, false);
    executor_.add_callback_group(group_, node->get_node_base_interface());
    rclcpp::SubscriptionOptions options;
    options.callback_group = group_;
    subscription_ = node->create_subscription<FaceScene>(
      "facial_expression_scene", rclcpp::QoS(1).transient_local(),
      [this](FaceScene::ConstSharedPtr scene) {scene_ = *scene;}, options);
  }

  static BT::PortsList providedPorts() {return {};}

  BT::NodeStatus tick() override
  {
    executor_.spin_some(std::chrono::milliseconds(10));
    return is_true(scene_) ? BT::NodeStatus::SUCCESS : BT::NodeStatus::FAILURE;
  }

protected:
  virtual bool is_true(const FaceScene & scene) = 0;

private:
  rclcpp::CallbackGroup::SharedPtr group_;
  rclcpp::executors::SingleThreadedExecutor executor_;
  rclcpp::Subscription<FaceScene>::SharedPtr subscription_;
  FaceScene scene_;
};

class SomebodyLooks : public SceneCondition
{
public:
  using SceneCondition::SceneCondition;

protected:
  bool is_true(const FaceScene & scene) override {return scene.looking_count > 0;}
};

class SomebodyShows : public SceneCondition
{
public:
  using SceneCondition::SceneCondition;

  static BT::PortsList providedPorts()
  {
    return {
      BT::InputPort<std::string>("expression", "happy, sad, ..."),
      BT::OutputPort<std::string>("face_id", "the first face that shows it")};
  }

protected:
  bool is_true(const FaceScene & scene) override
  {
    const auto expression = getInput<std::string>("expression");
    for (const auto & face : scene.faces) {
      if (expression && face.label == expression.value()) {
        setOutput("face_id", face.face_id);
        return true;
      }
    }
    return false;
  }
};

BT_REGISTER_NODES(factory)
{
  factory.registerNodeType<SomebodyLooks>("SomebodyLooks");
  factory.registerNodeType<SomebodyShows>("SomebodyShows");
}
