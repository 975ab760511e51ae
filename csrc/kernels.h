// THE contract. A backend is one value of `struct Kernels`: a table of functions, one per op.
//
//   Status op(Context*, const OpArgs*)            0 on success; never throws, never allocates, never falls back
//   int64_t op_workspace(const OpArgs*, threads)  scratch bytes op needs; a null entry means none
//
// Every argument struct is written once, as a list of fields: outputs, inputs, sizes, options. The list gives the
// struct here, the offsets a user's kernel is compiled against (`_C.describe`) and the ABI hash it is checked by.
// What changes from step to step (learning rate, clip scale, random key, position) is read through a pointer.
#pragma once
#include "core/types.h"

namespace gristmill {

// What shows in the bits, common to all tables (determinism contract). Tile sizes do not show and stay in cpu/. Of
// bfloat16 a table may take the instructions it has: avx512bf16's round results below 2^-126 to 0.
constexpr int64_t kLanes = 16;           // virtual lanes of every horizontal sum, added by one fixed tree
constexpr int64_t kReduceChunk = 16384;  // elements per partial sum of a long reduction
constexpr int64_t kRowChunk = 64;        // rows per partial sum of weight gradients (norms)
constexpr int64_t kAttentionKeys = 256;  // keys per block of the softmax
constexpr int64_t kLossColumns = 4096;   // logits of a row per partial log-sum-exp

struct Context {
  int32_t threads;
  // Calls fn(arg, i) once for each i in [0, n), in any order, on up to `threads` threads; returns when all are done.
  void (*parallel_for)(Context*, int64_t n, void (*fn)(void* arg, int64_t i), void* arg);
  void* workspace;  // 64-byte aligned
  int64_t workspace_bytes;
  void* stream;  // CUDA only
};

// clang-format off
// F(type, name, meaning). Shapes name the sizes below them; strides[i] belongs to the i-th dimension of the shape.

#define GM_MATMUL(F) \
  F(View, out, "(batch, M, N) f32|bf16, last stride 1")  F(View, a, "(batch, M, K) f32|bf16, any strides")  F(View, b, "(batch, K, N) f32|bf16, any strides") \
  F(int64_t, batch, "")  F(int64_t, M, "")  F(int64_t, N, "")  F(int64_t, K, "") \
  F(DType, compute, "f32: bf16 inputs are widened; bf16: f32 inputs are rounded while packing. Sums are f32 in both")

#define GM_MATMUL_PACK(F) \
  F(View, out, "(bytes,) u8, opaque; bytes = matmul_pack_workspace") F(View, b, "(K, N) f32|bf16, any strides") \
  F(int64_t, N, "")  F(int64_t, K, "")  F(DType, compute, "as the matmul that will use it")

#define GM_ATTENTION_FORWARD(F) \
  F(View, out, "(B, T, H, D) f32|bf16")  F(View, lse, "(B, H, T) f32: log-sum-exp of each row's scaled scores; may be null; never added to") \
  F(View, q, "(B, T, H, D) last stride 1")  F(View, k, "(B, S, G, D) last stride 1")  F(View, v, "(B, S, G, D) last stride 1") \
  F(View, start, "(B) i64: absolute position of query 0 in the keys; null: S - T") \
  F(int64_t, B, "") F(int64_t, T, "queries") F(int64_t, S, "keys, at least 1") F(int64_t, H, "query heads") F(int64_t, G, "key/value heads, H % G == 0") F(int64_t, D, "1 to 256") \
  F(float, scale, "usually 1/sqrt(D)")  F(int32_t, causal, "1: query at position p sees keys 0..p; 0: all S keys")

#define GM_ATTENTION_BACKWARD(F) \
  F(View, dq, "(B, T, H, D)") F(View, dk, "(B, S, G, D)") F(View, dv, "(B, S, G, D)") \
  F(View, dout, "(B, T, H, D)") F(View, q, "(B, T, H, D)") F(View, k, "(B, S, G, D)") F(View, v, "(B, S, G, D)") F(View, out, "(B, T, H, D)") \
  F(View, lse, "(B, H, T) f32 from the forward pass")  F(View, start, "(B) i64 or null, as in the forward pass") \
  F(int64_t, B, "") F(int64_t, T, "") F(int64_t, S, "") F(int64_t, H, "") F(int64_t, G, "") F(int64_t, D, "") \
  F(float, scale, "")  F(int32_t, causal, "")

#define GM_RMSNORM_FORWARD(F) \
  F(View, out, "(rows, cols) f32|bf16, last stride 1") F(View, rstd, "(rows) f32, kept for backward; may be null; never added to") \
  F(View, x, "(rows, cols) f32|bf16, last stride 1") F(View, weight, "(cols) f32") \
  F(int64_t, rows, "") F(int64_t, cols, "") F(float, eps, "")

#define GM_RMSNORM_BACKWARD(F) \
  F(View, dx, "(rows, cols)") F(View, dweight, "(cols) f32") \
  F(View, dout, "(rows, cols)") F(View, x, "(rows, cols)") F(View, weight, "(cols) f32") F(View, rstd, "(rows) f32") \
  F(int64_t, rows, "") F(int64_t, cols, "")

#define GM_LAYERNORM_FORWARD(F) \
  F(View, out, "(rows, cols) f32|bf16, last stride 1") F(View, mean, "(rows) f32, kept for backward; may be null; never added to") F(View, rstd, "(rows) f32, the same") \
  F(View, x, "(rows, cols) f32|bf16, last stride 1") F(View, weight, "(cols) f32") F(View, bias, "(cols) f32; null: 0") \
  F(int64_t, rows, "") F(int64_t, cols, "") F(float, eps, "")

#define GM_LAYERNORM_BACKWARD(F) \
  F(View, dx, "(rows, cols)") F(View, dweight, "(cols) f32") F(View, dbias, "(cols) f32; may be null") \
  F(View, dout, "(rows, cols)") F(View, x, "(rows, cols)") F(View, weight, "(cols) f32") F(View, mean, "(rows) f32") F(View, rstd, "(rows) f32") \
  F(int64_t, rows, "") F(int64_t, cols, "")

#define GM_GELU_FORWARD(F) \
  F(View, out, "(rows, cols) f32|bf16, last stride 1") F(View, x, "(rows, cols), last stride 1") \
  F(int64_t, rows, "") F(int64_t, cols, "") F(int32_t, approximate, "0: x Phi(x), with erf; 1: GPT-2's formula with tanh")

#define GM_GELU_BACKWARD(F) \
  F(View, dx, "(rows, cols)") F(View, dout, "(rows, cols)") F(View, x, "(rows, cols)") \
  F(int64_t, rows, "") F(int64_t, cols, "") F(int32_t, approximate, "as in the forward pass")

#define GM_SILU_FORWARD(F) \
  F(View, out, "(rows, cols) f32|bf16, last stride 1") F(View, x, "(rows, cols), last stride 1") \
  F(int64_t, rows, "") F(int64_t, cols, "")

#define GM_SILU_BACKWARD(F) \
  F(View, dx, "(rows, cols)") F(View, dout, "(rows, cols)") F(View, x, "(rows, cols)") \
  F(int64_t, rows, "") F(int64_t, cols, "")

#define GM_SWIGLU_FORWARD(F) \
  F(View, out, "(rows, cols) f32|bf16, last stride 1") F(View, gate, "(rows, cols), last stride 1") F(View, up, "(rows, cols), last stride 1") \
  F(int64_t, rows, "") F(int64_t, cols, "")

#define GM_SWIGLU_BACKWARD(F) \
  F(View, dgate, "(rows, cols)") F(View, dup, "(rows, cols)") \
  F(View, dout, "(rows, cols)") F(View, gate, "(rows, cols)") F(View, up, "(rows, cols)") \
  F(int64_t, rows, "") F(int64_t, cols, "")

#define GM_RELU_FORWARD(F) \
  F(View, out, "(rows, cols) f32|bf16, last stride 1") F(View, x, "(rows, cols), last stride 1") \
  F(int64_t, rows, "") F(int64_t, cols, "")

#define GM_RELU_BACKWARD(F) \
  F(View, dx, "(rows, cols)") F(View, dout, "(rows, cols)") F(View, out, "(rows, cols) from the forward pass") \
  F(int64_t, rows, "") F(int64_t, cols, "")

#define GM_TANH_FORWARD(F) \
  F(View, out, "(rows, cols) f32|bf16, last stride 1") F(View, x, "(rows, cols), last stride 1") \
  F(int64_t, rows, "") F(int64_t, cols, "")

#define GM_TANH_BACKWARD(F) \
  F(View, dx, "(rows, cols)") F(View, dout, "(rows, cols)") F(View, out, "(rows, cols) from the forward pass") \
  F(int64_t, rows, "") F(int64_t, cols, "")

#define GM_SIGMOID_FORWARD(F) \
  F(View, out, "(rows, cols) f32|bf16, last stride 1") F(View, x, "(rows, cols), last stride 1") \
  F(int64_t, rows, "") F(int64_t, cols, "")

#define GM_SIGMOID_BACKWARD(F) \
  F(View, dx, "(rows, cols)") F(View, dout, "(rows, cols)") F(View, out, "(rows, cols) from the forward pass") \
  F(int64_t, rows, "") F(int64_t, cols, "")

#define GM_ROPE(F) \
  F(View, out, "(B, T, H, D) f32|bf16, last stride 1; may be x itself unless interleaved") F(View, x, "(B, T, H, D) last stride 1") \
  F(View, cos, "(positions, D/2) f32") F(View, sin, "(positions, D/2) f32") F(View, start, "(B) i64: position of row 0; null: 0") \
  F(int64_t, B, "") F(int64_t, T, "") F(int64_t, H, "") F(int64_t, D, "even, at most 1024") F(int64_t, positions, "start + T <= positions") \
  F(int32_t, inverse, "1: rotate back (the backward pass)") \
  F(int32_t, interleaved, "1: x has pairs (2i, 2i+1) as GGUF stores them; out always has halves (i, i + D/2) as Hugging Face does")

#define GM_EMBEDDING_FORWARD(F) \
  F(View, out, "(rows, cols) f32|bf16, last stride 1") F(View, weight, "(V, cols) f32|bf16, last stride 1") F(View, ids, "(rows) i32, 0 <= id < V, checked by the caller") \
  F(int64_t, rows, "") F(int64_t, cols, "") F(int64_t, V, "")

#define GM_EMBEDDING_BACKWARD(F) \
  F(View, dweight, "(V, cols) f32, last stride 1") F(View, dout, "(rows, cols) f32|bf16, last stride 1") F(View, ids, "(rows) i32") \
  F(int64_t, rows, "") F(int64_t, cols, "") F(int64_t, V, "")

#define GM_SOFTMAX_FORWARD(F) \
  F(View, out, "(rows, cols) f32|bf16, last stride 1; a row of nothing but -inf gives 0") F(View, x, "(rows, cols) f32|bf16, last stride 1") \
  F(int64_t, rows, "") F(int64_t, cols, "")

#define GM_SOFTMAX_BACKWARD(F) \
  F(View, dx, "(rows, cols)") F(View, dout, "(rows, cols)") F(View, out, "(rows, cols) from the forward pass") \
  F(int64_t, rows, "") F(int64_t, cols, "")

#define GM_CROSS_ENTROPY_FORWARD(F) \
  F(View, losses, "(rows) f32, 0 where the target is ignored") F(View, lse, "(rows) f32, kept for backward; may be null; never added to") \
  F(View, logits, "(rows, V) f32|bf16, last stride 1") F(View, targets, "(rows) i32; below 0: ignored") \
  F(int64_t, rows, "") F(int64_t, V, "")  F(float, smoothing, "share of the target that goes to all V classes alike, 0 <= smoothing < 1")

#define GM_CROSS_ENTROPY_BACKWARD(F) \
  F(View, dlogits, "(rows, V); may be logits itself when not accumulating") \
  F(View, dlosses, "(rows) f32, strides[0] may be 0") F(View, logits, "(rows, V)") F(View, lse, "(rows) f32") F(View, targets, "(rows) i32") \
  F(int64_t, rows, "") F(int64_t, V, "")  F(float, smoothing, "as in the forward pass")

#define GM_LINEAR_CROSS_ENTROPY(F) \
  F(View, losses, "(rows) f32, 0 where ignored") \
  F(View, dx, "(rows, cols): gradient of sum(scale * losses); may be null") F(View, dweight, "(V, cols) f32: the same; may be null") \
  F(View, x, "(rows, cols) f32|bf16") F(View, weight, "(V, cols) f32|bf16") F(View, targets, "(rows) i32; below 0: ignored") \
  F(int64_t, rows, "") F(int64_t, cols, "") F(int64_t, V, "") \
  F(float, scale, "usually 1 / number of counted targets") F(float, smoothing, "as in cross_entropy") F(DType, compute, "as in matmul")

#define GM_MSE_FORWARD(F) \
  F(View, loss, "(1) f32|bf16: the mean of (x - target)^2") F(View, x, "(n) f32|bf16, contiguous") F(View, target, "(n) the same") \
  F(int64_t, n, "0: the mean is NaN")

#define GM_MSE_BACKWARD(F) \
  F(View, dx, "(n); may be null") F(View, dtarget, "(n): the same with the other sign; may be null") \
  F(View, dloss, "(1) f32|bf16") F(View, x, "(n) f32|bf16, contiguous") F(View, target, "(n) the same") \
  F(int64_t, n, "")

#define GM_DROPOUT(F) \
  F(View, out, "(n) f32|bf16, contiguous") F(View, x, "(n) f32|bf16, contiguous; dout in the backward pass: the mask is the same") \
  F(const uint64_t*, key, "[seed, stream]: of each 64 words of philox the lower halves, then the upper ones; kept where half i >= d = round(65536 p), at most 65535, times 65536 / (65536 - d)") \
  F(int64_t, n, "") F(float, p, "0 <= p < 1")

#define GM_ELEMENTWISE(F) \
  F(View, out, "(n0, n1, n2, n3) any dtype, any strides") F(View, a, "(n0, n1, n2, n3), stride 0 broadcasts") F(View, b, "the same; null: the number alpha; ops of one operand take none") \
  F(int64_t, n0, "") F(int64_t, n1, "") F(int64_t, n2, "") F(int64_t, n3, "") \
  F(int32_t, op, "enum Elementwise") F(float, alpha, "second operand when b is null")

#define GM_REDUCE(F) \
  F(View, out, "(rows) f32") F(View, x, "(rows, cols) f32|bf16, any strides") \
  F(int64_t, rows, "") F(int64_t, cols, "") F(int32_t, op, "enum Reduce")

#define GM_RANDOM(F) \
  F(View, out, "(n) f32|bf16, contiguous") F(const uint64_t*, key, "[seed, stream]: element i comes of word i of philox(seed, stream); normal ones 2i, 2i + 1 of both their words") \
  F(int64_t, n, "") F(int32_t, distribution, "enum Distribution") F(float, a, "low | mean | mean") F(float, b, "high | std | std, cut at two std")

#define GM_ORTHOGONAL(F) \
  F(View, out, "(rows, cols) f32 contiguous: normal numbers in, (semi-)orthogonal rows or columns times gain out") \
  F(int64_t, rows, "") F(int64_t, cols, "") F(float, gain, "")

#define GM_ADAMW(F) \
  F(View, param, "(n) f32") F(View, m, "(n) f32|bf16") F(View, v, "(n) the same") F(View, grad, "(n) f32") \
  F(const float*, step, "[learning rate, gradient scale, 1 - beta1^t, 1 - beta2^t]") \
  F(const uint64_t*, key, "[seed, stream], another one every step: rounds bf16 m and v at random: of each 64 words of philox the lowest bytes, then the next ones; null for f32") \
  F(int64_t, n, "") F(float, beta1, "") F(float, beta2, "") F(float, eps, "") F(float, weight_decay, "decoupled")

#define GM_ADAM(F) \
  F(View, param, "(n) f32") F(View, m, "(n) f32|bf16") F(View, v, "(n) the same") F(View, grad, "(n) f32") \
  F(const float*, step, "as in adamw") F(const uint64_t*, key, "as in adamw") \
  F(int64_t, n, "") F(float, beta1, "") F(float, beta2, "") F(float, eps, "") F(float, weight_decay, "added to the gradient")

#define GM_RMSPROP(F) \
  F(View, param, "(n) f32") F(View, square, "(n) f32") F(View, mean, "(n) f32; null: not centred") F(View, velocity, "(n) f32; null without momentum") F(View, grad, "(n) f32") \
  F(const float*, step, "[learning rate, gradient scale]") \
  F(int64_t, n, "") F(float, alpha, "") F(float, eps, "") F(float, weight_decay, "added to the gradient") F(float, momentum, "")

#define GM_SGD(F) \
  F(View, param, "(n) f32") F(View, velocity, "(n) f32; null without momentum") F(View, grad, "(n) f32") \
  F(const float*, step, "[learning rate, gradient scale, 1 on the first step else 0]") \
  F(int64_t, n, "") F(float, momentum, "") F(float, dampening, "") F(float, weight_decay, "added to the gradient") F(int32_t, nesterov, "")

// X(entry, FIELDS, Args struct, plain entries it fuses or ""). A replaced plain entry turns off the fusions that contain it.
#define GM_OPS(X) \
  X(matmul,               MATMUL,               MatmulArgs,               "") \
  X(matmul_pack,          MATMUL_PACK,          MatmulPackArgs,           "") \
  X(attention_forward,    ATTENTION_FORWARD,    AttentionForwardArgs,     "") \
  X(attention_backward,   ATTENTION_BACKWARD,   AttentionBackwardArgs,    "") \
  X(rmsnorm_forward,      RMSNORM_FORWARD,      RmsnormForwardArgs,       "") \
  X(rmsnorm_backward,     RMSNORM_BACKWARD,     RmsnormBackwardArgs,      "") \
  X(layernorm_forward,    LAYERNORM_FORWARD,    LayernormForwardArgs,     "") \
  X(layernorm_backward,   LAYERNORM_BACKWARD,   LayernormBackwardArgs,    "") \
  X(gelu_forward,         GELU_FORWARD,         GeluForwardArgs,          "") \
  X(gelu_backward,        GELU_BACKWARD,        GeluBackwardArgs,         "") \
  X(silu_forward,         SILU_FORWARD,         SiluForwardArgs,          "") \
  X(silu_backward,        SILU_BACKWARD,        SiluBackwardArgs,         "") \
  X(swiglu_forward,       SWIGLU_FORWARD,       SwigluForwardArgs,        "silu_forward") \
  X(swiglu_backward,      SWIGLU_BACKWARD,      SwigluBackwardArgs,       "silu_forward silu_backward") \
  X(relu_forward,         RELU_FORWARD,         ReluForwardArgs,          "") \
  X(relu_backward,        RELU_BACKWARD,        ReluBackwardArgs,         "") \
  X(tanh_forward,         TANH_FORWARD,         TanhForwardArgs,          "") \
  X(tanh_backward,        TANH_BACKWARD,        TanhBackwardArgs,         "") \
  X(sigmoid_forward,      SIGMOID_FORWARD,      SigmoidForwardArgs,       "") \
  X(sigmoid_backward,     SIGMOID_BACKWARD,     SigmoidBackwardArgs,      "") \
  X(rope,                 ROPE,                 RopeArgs,                 "") \
  X(embedding_forward,    EMBEDDING_FORWARD,    EmbeddingForwardArgs,     "") \
  X(embedding_backward,   EMBEDDING_BACKWARD,   EmbeddingBackwardArgs,    "") \
  X(softmax_forward,      SOFTMAX_FORWARD,      SoftmaxForwardArgs,       "") \
  X(softmax_backward,     SOFTMAX_BACKWARD,     SoftmaxBackwardArgs,      "") \
  X(cross_entropy_forward,  CROSS_ENTROPY_FORWARD,  CrossEntropyForwardArgs,  "") \
  X(cross_entropy_backward, CROSS_ENTROPY_BACKWARD, CrossEntropyBackwardArgs, "") \
  X(linear_cross_entropy, LINEAR_CROSS_ENTROPY, LinearCrossEntropyArgs,   "matmul cross_entropy_forward cross_entropy_backward") \
  X(mse_forward,          MSE_FORWARD,          MseForwardArgs,           "") \
  X(mse_backward,         MSE_BACKWARD,         MseBackwardArgs,          "") \
  X(dropout,              DROPOUT,              DropoutArgs,              "") \
  X(elementwise,          ELEMENTWISE,          ElementwiseArgs,          "") \
  X(reduce,               REDUCE,               ReduceArgs,               "") \
  X(random,               RANDOM,               RandomArgs,               "") \
  X(orthogonal,           ORTHOGONAL,           OrthogonalArgs,           "") \
  X(adamw,                ADAMW,                AdamwArgs,                "") \
  X(adam,                 ADAM,                 AdamArgs,                 "") \
  X(rmsprop,              RMSPROP,              RmspropArgs,              "") \
  X(sgd,                  SGD,                  SgdArgs,                  "")

enum class Elementwise : int32_t { copy, add, sub, mul, div, maximum, neg, exp, log, sqrt, square };
enum class Reduce : int32_t { sum, mean, max, sum_of_squares };
enum class Distribution : int32_t { uniform, normal, truncated_normal };

#define GM_FIELD(type, name, meaning) type name;
#define GM_STRUCT(entry, FIELDS, Args, contains) struct Args { GM_##FIELDS(GM_FIELD) };
GM_OPS(GM_STRUCT)

// What a kernel reads through pointers besides its arguments; their order is that of the structs.
#define GM_VIEW(F) F(void*, data, "") F(const void*, packed, "") F(int64_t[4], strides, "") F(DType, dtype, "") F(int32_t, accumulate, "")
#define GM_CONTEXT(F) F(int32_t, threads, "") F(void*, parallel_for, "") F(void*, workspace, "") F(int64_t, workspace_bytes, "") F(void*, stream, "")

// FNV-1a over every list of fields: a kernel must be compiled against the structs that the table calls it with.
consteval uint64_t abi_add(uint64_t h, const char* s) {
  for (; *s; ++s) h = (h ^ static_cast<unsigned char>(*s)) * 1099511628211ull;
  return h;
}
#define GM_ABI_FIELD(type, name, meaning) h = abi_add(abi_add(h, #type), #name);
#define GM_ABI_ENTRY(entry, FIELDS, Args, contains) h = abi_add(h, #entry); GM_##FIELDS(GM_ABI_FIELD)
#define GM_ABI_PLACE(type, name, meaning) h = (abi_add(h, #name) ^ offsetof(GM_CURRENT, name)) * 1099511628211ull;
consteval uint64_t kernel_abi() {
  uint64_t h = 14695981039346656037ull;
  GM_OPS(GM_ABI_ENTRY)
  { using GM_CURRENT = View; GM_VIEW(GM_ABI_PLACE) }
  { using GM_CURRENT = Context; GM_CONTEXT(GM_ABI_PLACE) }
  return h ^ sizeof(View) ^ (sizeof(Context) << 8);
}

#define GM_ENTRY(entry, FIELDS, Args, contains) \
  Status (*entry)(Context*, const Args*); \
  int64_t (*entry##_workspace)(const Args*, int32_t threads);
struct Kernels {
  const char* name;  // scalar, avx2, avx512, avx512bf16, neon, cuda, cudasim
  GM_OPS(GM_ENTRY)
};
// clang-format on

}  // namespace gristmill
