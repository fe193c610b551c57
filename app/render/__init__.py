"""Maps -> what people and programs look at."""
