"""
gristmill's kernels: tables of functions by instruction set, and arrays to call them on
"""

from __future__ import annotations
import collections.abc
import numpy
import numpy.typing
import typing

class Array:
    """
    A view of a shared buffer: shape and strides in elements, dtype by name.
    """
    def accumulating(self) -> Array:
        """
        The same memory as an output that is added to.
        """
    def frozen(self) -> Array:
        """
        The same memory, exported to NumPy read-only.
        """
    def numpy(self) -> numpy.typing.NDArray[typing.Any]:
        """
        The same memory as a NumPy array; bfloat16 comes as uint16.
        """
    def view(
        self,
        shape: collections.abc.Sequence[int],
        strides: collections.abc.Sequence[int] | None = None,
        offset: int = 0,
    ) -> Array: ...
    @property
    def contiguous(self) -> bool: ...
    @property
    def data_ptr(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def read_only(self) -> bool: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def size(self) -> int: ...
    @property
    def sole(self) -> bool:
        """
        Whether no other array, view or NumPy export has this memory.
        """
    @property
    def strides(self) -> tuple[int, ...]: ...

class Model:
    """
    Weights and tokenizer of a GGUF file, or live tensors.
    """
    @staticmethod
    def from_tensors(
        config: dict[str, typing.Any], tensors: collections.abc.Mapping[str, Array]
    ) -> Model:
        """
        A model on live arrays under Hugging Face's names, without copy and without tokenizer.
        """
    def __init__(self, path: str, verify: bool = True) -> None:
        """
        Maps a GGUF file; raises ValueError with reason and byte offset.
        """
    def detokenize(self, ids: collections.abc.Sequence[int]) -> bytes: ...
    def selftest(self) -> int:
        """
        Compares the vectors the file carries; returns how many, raises where one differs.
        """
    def token_bytes(self, id: int) -> bytes: ...
    def tokenize(self, text: bytes, special: bool) -> list[int]: ...
    @property
    def architecture(self) -> str: ...
    @property
    def bos_id(self) -> int: ...
    @property
    def digest(self) -> str:
        """
        sha256 of the whole file; empty for live tensors.
        """
    @property
    def eos_id(self) -> int: ...
    @property
    def metadata(self) -> typing.Any: ...
    @property
    def n_ctx(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...

class Session:
    """
    A key-value cache of n_ctx tokens and the forward pass of its model.
    """
    def __init__(self, model: Model, n_ctx: int) -> None: ...
    def eval(self, ids: collections.abc.Sequence[int]) -> numpy.typing.NDArray[numpy.float32]:
        """
        Appends ids; logits (V,) of the last.
        """
    def eval_all(self, ids: collections.abc.Sequence[int]) -> numpy.typing.NDArray[numpy.float32]:
        """
        Appends ids; logits (n, V) of each.
        """
    def truncate(self, n: int) -> None:
        """
        Keeps the first n tokens.
        """
    @property
    def length(self) -> int: ...
    @property
    def n_ctx(self) -> int: ...

def abi() -> int:
    """
    Hash of the argument structs; a user's kernel is checked against it.
    """

def adam(
    param: Array,
    m: Array,
    v: Array,
    grad: Array,
    step: Array,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    seed: int = 0,
    stream: int = 0,
) -> None:
    """
    step: [learning rate, gradient scale, 1 - beta1^t, 1 - beta2^t]. Seed and stream round m and v where they are bfloat16.
    """

def adamw(
    param: Array,
    m: Array,
    v: Array,
    grad: Array,
    step: Array,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    seed: int = 0,
    stream: int = 0,
) -> None:
    """
    step: [learning rate, gradient scale, 1 - beta1^t, 1 - beta2^t]. Seed and stream round m and v where they are bfloat16.
    """

def attention_backward(
    dq: Array,
    dk: Array,
    dv: Array,
    dout: Array,
    q: Array,
    k: Array,
    v: Array,
    out: Array,
    lse: Array,
    start: Array | None,
    scale: float,
    causal: bool,
) -> None: ...
def attention_forward(
    out: Array,
    lse: Array | None,
    q: Array,
    k: Array,
    v: Array,
    start: Array | None,
    scale: float,
    causal: bool,
) -> None: ...
def cross_entropy_backward(
    dlogits: Array,
    dlosses: Array,
    logits: Array,
    lse: Array,
    targets: Array,
    smoothing: float = 0.0,
) -> None: ...
def cross_entropy_forward(
    losses: Array, lse: Array | None, logits: Array, targets: Array, smoothing: float = 0.0
) -> None: ...
def cuda_absent_reason() -> str: ...
def describe(entry: str) -> dict[str, typing.Any]:
    """
    Fields of an entry's argument struct, of View or of Context, with offsets in bytes.
    """

def dropout(out: Array, x: Array, seed: int, stream: int, p: float) -> None: ...
def elementwise(out: Array, a: Array, b: Array | None, op: str, alpha: float) -> None:
    """
    out = op(a, b), or op(a, alpha) without b; shapes equal, at most 4 dimensions, stride 0 broadcasts.
    """

def embedding_backward(dweight: Array, dout: Array, ids: Array) -> None: ...
def embedding_forward(out: Array, weight: Array, ids: Array) -> None: ...
def empty(shape: collections.abc.Sequence[int], dtype: str = "float32") -> Array: ...
def entries() -> list[dict[str, typing.Any]]: ...
def eval_batch(
    sessions: list[Session], ids: collections.abc.Sequence[collections.abc.Sequence[int]]
) -> numpy.typing.NDArray[numpy.float32]:
    """
    Appends ids[i] to sessions[i], all of one model and each given once; logits (n, V) of the last id of each,
    with the bits of sessions[i].eval(ids[i]). Raises ValueError naming the sequence; then none has changed.
    """

def from_numpy(array: numpy.typing.NDArray[typing.Any], bfloat16: bool = False) -> Array:
    """
    Shares the memory of a NumPy array; uint16 is taken as bfloat16 when asked.
    """

def fused(entry: str) -> bool:
    """
    Whether an entry may be used: it is there, and no plain entry it contains was replaced.
    """

def gelu_backward(dx: Array, dout: Array, x: Array, approximate: bool) -> None: ...
def gelu_forward(out: Array, x: Array, approximate: bool) -> None: ...
def layernorm_backward(
    dx: Array,
    dweight: Array,
    dbias: Array | None,
    dout: Array,
    x: Array,
    weight: Array,
    mean: Array,
    rstd: Array,
) -> None: ...
def layernorm_forward(
    out: Array,
    mean: Array | None,
    rstd: Array | None,
    x: Array,
    weight: Array,
    bias: Array | None,
    eps: float,
) -> None: ...
def linear_cross_entropy(
    losses: Array,
    dx: Array | None,
    dweight: Array | None,
    x: Array,
    weight: Array,
    targets: Array,
    scale: float,
    compute: str = "float32",
    smoothing: float = 0.0,
) -> None: ...
def matmul(
    out: Array, a: Array, b: Array, compute: str = "float32", packed: Array | None = None
) -> None:
    """
    out (batch, M, N) = a (batch, M, K) @ b (batch, K, N), with any strides of a and b.
    """

def matmul_pack(b: Array, compute: str = "float32") -> Array:
    """
    b (K, N) as the active table's matmul reads it; opaque bytes for its argument `packed`.
    """

def memory_empty_cache() -> None: ...
def memory_stats() -> dict[str, typing.Any]: ...
def mse_backward(
    dx: Array | None, dtarget: Array | None, dloss: Array, x: Array, target: Array
) -> None: ...
def mse_forward(loss: Array, x: Array, target: Array) -> None: ...
def orthogonal(out: Array, gain: float) -> None: ...
def random(out: Array, seed: int, stream: int, distribution: str, a: float, b: float) -> None: ...
def reduce(out: Array, x: Array, op: str) -> None: ...
def relu_backward(dx: Array, dout: Array, out: Array) -> None: ...
def relu_forward(out: Array, x: Array) -> None: ...
def rmsnorm_backward(
    dx: Array, dweight: Array, dout: Array, x: Array, weight: Array, rstd: Array
) -> None: ...
def rmsnorm_forward(
    out: Array, rstd: Array | None, x: Array, weight: Array, eps: float
) -> None: ...
def rmsprop(
    param: Array,
    square: Array,
    mean: Array | None,
    velocity: Array | None,
    grad: Array,
    step: Array,
    alpha: float,
    eps: float,
    weight_decay: float,
    momentum: float,
) -> None:
    """
    step: [learning rate, gradient scale]; mean: None where not centred.
    """

def rope(
    out: Array,
    x: Array,
    cos: Array,
    sin: Array,
    start: Array | None,
    inverse: bool,
    interleaved: bool,
) -> None: ...
def rope_table(cos: Array, sin: Array, theta: float) -> None:
    """
    Fills cos and sin, both (positions, D/2).
    """

def sample(
    logits: numpy.typing.NDArray[numpy.float32],
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    seed: int,
    position: int,
) -> int:
    """
    Draws a token id from logits (V,); a pure function of its arguments.
    """

def select(name: str) -> None:
    """
    Use another table; forgets replaced entries.
    """

def set_threads(n: int) -> None: ...
def sgd(
    param: Array,
    velocity: Array | None,
    grad: Array,
    step: Array,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
) -> None:
    """
    step: [learning rate, gradient scale, 1 on the first step else 0].
    """

def sigmoid_backward(dx: Array, dout: Array, out: Array) -> None: ...
def sigmoid_forward(out: Array, x: Array) -> None: ...
def silu_backward(dx: Array, dout: Array, x: Array) -> None: ...
def silu_forward(out: Array, x: Array) -> None: ...
def softmax_backward(dx: Array, dout: Array, out: Array) -> None: ...
def softmax_forward(out: Array, x: Array) -> None: ...
def span(first: Array, shape: collections.abc.Sequence[int]) -> Array:
    """
    A row-major view that starts where `first` does and runs on into its neighbours; the caller has checked them.
    """

def swap(entry: str, address: int | None, workspace: int | None = None) -> None:
    """
    Replace one entry by a function address, and its <entry>_workspace (None: it needs none); no address restores the table's own two.
    """

def swiglu_backward(dgate: Array, dup: Array, dout: Array, gate: Array, up: Array) -> None: ...
def swiglu_forward(out: Array, gate: Array, up: Array) -> None: ...
def table() -> str: ...
def table_reason() -> str: ...
def tables() -> list[str]:
    """
    Tables this machine can run, best first.
    """

def tanh_backward(dx: Array, dout: Array, out: Array) -> None: ...
def tanh_forward(out: Array, x: Array) -> None: ...
def threads() -> int: ...
