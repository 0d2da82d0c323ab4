"""String keys shared by the pipelines, the models and the exported networks."""

IMAGE = "image"
LABEL = "label"
IMAGE_NAME = "image_name"
HEIGHT = "height"
WIDTH = "width"
REWARD = "reward"
# 1 where the reward is an estimate: the trial was given up after its first stage.
REJECTED = "rejected"
PICTURES = "pictures"

# Names of the tensors of an exported network, as DeepLab's export_model has them.
IMAGE_TENSOR = "ImageTensor"
SEMANTIC_PREDICTIONS = "SemanticPredictions"

# The largest seed that Keras and NumPy's older generators take.
MAX_SEED = 2**32 - 1

TRAIN_SPLIT = "train"
VAL_SPLIT = "val"
TEST_SPLIT = "test"
