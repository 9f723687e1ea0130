from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CameraImage(_message.Message):
    __slots__ = ("image_data", "encoding")
    IMAGE_DATA_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    image_data: bytes
    encoding: str
    def __init__(self, image_data: _Optional[bytes] = ..., encoding: _Optional[str] = ...) -> None: ...

class RobotState(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, state: _Optional[_Iterable[float]] = ...) -> None: ...

class ActionVector(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class ObservationRequest(_message.Message):
    __slots__ = ("images", "robot_state", "prompt", "prefix_action", "delay", "timestamp_ns", "request_id", "noise_seed")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    ROBOT_STATE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    PREFIX_ACTION_FIELD_NUMBER: _ClassVar[int]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_NS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NOISE_SEED_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[CameraImage]
    robot_state: RobotState
    prompt: str
    prefix_action: _containers.RepeatedCompositeFieldContainer[ActionVector]
    delay: int
    timestamp_ns: int
    request_id: str
    noise_seed: int
    def __init__(self, images: _Optional[_Iterable[_Union[CameraImage, _Mapping]]] = ..., robot_state: _Optional[_Union[RobotState, _Mapping]] = ..., prompt: _Optional[str] = ..., prefix_action: _Optional[_Iterable[_Union[ActionVector, _Mapping]]] = ..., delay: _Optional[int] = ..., timestamp_ns: _Optional[int] = ..., request_id: _Optional[str] = ..., noise_seed: _Optional[int] = ...) -> None: ...

class ActionChunkResponse(_message.Message):
    __slots__ = ("action_chunk", "timestamp_ns", "request_id", "inference_time_ms", "accel", "weight_version", "observation_age_ms", "interventions", "observation_id")
    ACTION_CHUNK_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_NS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    ACCEL_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_VERSION_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    INTERVENTIONS_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_ID_FIELD_NUMBER: _ClassVar[int]
    action_chunk: _containers.RepeatedCompositeFieldContainer[ActionVector]
    timestamp_ns: int
    request_id: str
    inference_time_ms: float
    accel: float
    weight_version: int
    observation_age_ms: float
    interventions: _containers.RepeatedScalarFieldContainer[str]
    observation_id: str
    def __init__(self, action_chunk: _Optional[_Iterable[_Union[ActionVector, _Mapping]]] = ..., timestamp_ns: _Optional[int] = ..., request_id: _Optional[str] = ..., inference_time_ms: _Optional[float] = ..., accel: _Optional[float] = ..., weight_version: _Optional[int] = ..., observation_age_ms: _Optional[float] = ..., interventions: _Optional[_Iterable[str]] = ..., observation_id: _Optional[str] = ...) -> None: ...

class HealthCheckRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HealthCheckResponse(_message.Message):
    __slots__ = ("healthy", "status", "model_name", "device", "gpu_memory_used_gb", "gpu_memory_total_gb")
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    GPU_MEMORY_USED_GB_FIELD_NUMBER: _ClassVar[int]
    GPU_MEMORY_TOTAL_GB_FIELD_NUMBER: _ClassVar[int]
    healthy: bool
    status: str
    model_name: str
    device: str
    gpu_memory_used_gb: float
    gpu_memory_total_gb: float
    def __init__(self, healthy: bool = ..., status: _Optional[str] = ..., model_name: _Optional[str] = ..., device: _Optional[str] = ..., gpu_memory_used_gb: _Optional[float] = ..., gpu_memory_total_gb: _Optional[float] = ...) -> None: ...
