"""What `report_to` names: TensorBoard, Weights & Biases, trackio, each an extra of its own."""
