"""A network whose first layer takes its pooling along, with another pooling between sparse layers."""

POOLED = """
image    input   3x32x32
stem     conv    image    outputs=32 kernel=3 relu dense
pooled   maxpool stem     kernel=3 stride=2 padding=1
middle   conv    pooled   outputs=48 kernel=3 relu
halved   maxpool middle   kernel=2 stride=2 padding=0
last     conv    halved   outputs=32 relu
average  average last
"""
