"""What becomes of the options that a session is made from, against ONNX Runtime without gossamer's help."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import gossamer_runtime
import numpy as np
import onnxruntime
import pytest

try:
    gossamer_runtime.library_path()
except gossamer_runtime.NativeLibraryMissing as missing:
    pytest.skip(str(missing), allow_module_level=True)

IMAGE = np.random.default_rng(1).standard_normal((1, 8, 14, 14)).astype(np.float32)


def output(session: onnxruntime.InferenceSession) -> np.ndarray:
    return session.run(None, {"x": IMAGE})[0]


@pytest.fixture(scope="module")
def expected(small_model: bytes) -> np.ndarray:
    """By options that were registered by hand, once."""
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(gossamer_runtime.library_path())
    return output(onnxruntime.InferenceSession(small_model, options, providers=["CPUExecutionProvider"]))


def test_one_options_object_serves_many_sessions(small_model: bytes, expected: np.ndarray) -> None:
    options = onnxruntime.SessionOptions()
    for _ in range(3):
        np.testing.assert_array_equal(output(gossamer_runtime.Session(small_model, options)), expected)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda model: memoryview(bytearray(model))])
def test_bytes_of_any_kind_are_a_model(kind, small_model: bytes, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(output(gossamer_runtime.Session(kind(small_model))), expected)


def test_options_made_ready_serve_sessions_of_both_kinds(small_model: bytes, expected: np.ndarray) -> None:
    options = gossamer_runtime.session_options()
    assert gossamer_runtime.session_options(options) is options
    np.testing.assert_array_equal(output(gossamer_runtime.Session(small_model, options)), expected)
    plain = onnxruntime.InferenceSession(small_model, options, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(output(plain), expected)


def test_sessions_made_at_once_from_one_options_object(small_model: bytes, expected: np.ndarray) -> None:
    options = onnxruntime.SessionOptions()
    with ThreadPoolExecutor(8) as pool:
        for session in pool.map(lambda _: gossamer_runtime.Session(small_model, options), range(16)):
            np.testing.assert_array_equal(output(session), expected)


def test_the_copy_of_options_that_a_session_returns_is_registered_anew(
    small_model: bytes, expected: np.ndarray
) -> None:
    copy = gossamer_runtime.Session(small_model).get_session_options()
    np.testing.assert_array_equal(output(gossamer_runtime.Session(small_model, copy)), expected)


def test_options_keep_their_number_of_threads_and_tell_the_ops(small_model: bytes) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    gossamer_runtime.Session(small_model, options)
    assert options.intra_op_num_threads == 2
    assert options.get_session_config_entry("gossamer.threads") == "2"
    assert options.get_session_config_entry("optimization.disable_specified_optimizers") == "SkipLayerNormFusion"


def test_threads_beside_options_are_an_error_and_change_nothing(small_model: bytes) -> None:
    options = onnxruntime.SessionOptions()
    with pytest.raises(ValueError, match="got both: set intra_op_num_threads=2 on the options"):
        gossamer_runtime.Session(small_model, options, threads=2)
    assert options.intra_op_num_threads == 0
    with pytest.raises(ValueError, match="0 or more, got -1"):
        gossamer_runtime.Session(small_model, threads=-1)
    # 0 leaves the choice to ONNX Runtime.
    assert gossamer_runtime.Session(small_model, threads=0).get_session_options().intra_op_num_threads == 0


def test_another_number_of_threads_after_registering_is_an_error(small_model: bytes) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    gossamer_runtime.Session(small_model, options)
    options.intra_op_num_threads = 2
    with pytest.raises(ValueError, match="intra_op_num_threads=1, which they keep, got 2: make new"):
        gossamer_runtime.Session(small_model, options)


def test_options_registered_by_hand_are_an_error_that_says_what_to_do(small_model: bytes) -> None:
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(gossamer_runtime.library_path())
    with pytest.raises(ValueError, match=r"twice: make new ones.*onnxruntime\.InferenceSession"):
        gossamer_runtime.Session(small_model, options)


def test_a_missing_library_leaves_options_unchanged(small_model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    options = onnxruntime.SessionOptions()
    with monkeypatch.context() as without:
        without.setenv("GOSSAMER_OPS", "nothing.so")
        with pytest.raises(gossamer_runtime.NativeLibraryMissing):
            gossamer_runtime.Session(small_model, options)
    with pytest.raises(RuntimeError, match=r"gossamer\.threads"):
        options.get_session_config_entry("gossamer.threads")


def test_options_are_not_kept_alive() -> None:
    options = gossamer_runtime.session_options()
    gone = weakref.ref(options)
    del options
    gc.collect()
    assert gone() is None
