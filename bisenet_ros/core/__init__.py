"""The parts that know nothing of ROS: contract, pre- and postprocessing, engine, segmenter."""
