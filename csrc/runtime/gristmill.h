/* gristmill's C interface: load a GGUF file, tokenize, evaluate, sample. No C++ types, no exceptions. Functions return
 * GRISTMILL_OK or a code below and then fill `error` (may be NULL).
 * A model may be shared by sessions of several threads; a session belongs to one thread at a time.
 * The process keeps a pool of threads and the table of kernels for its processor, both made at the first use, when
 * GRISTMILL_THREADS and GRISTMILL_ISA are read. A call that finds the pool busy computes on its own thread, with the
 * same bits. */
#ifndef GRISTMILL_H
#define GRISTMILL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define GRISTMILL_API __attribute__((visibility("default")))
#else
#define GRISTMILL_API
#endif

#define GRISTMILL_ABI_VERSION 1u

enum {
  GRISTMILL_OK = 0,
  GRISTMILL_BAD_FILE = 1,     /* unreadable, damaged or unsupported; error.offset says where */
  GRISTMILL_BAD_ARGUMENT = 2, /* a value outside what is allowed */
  GRISTMILL_NO_MEMORY = 3,    /* memory ran out; nothing is wrong with file or arguments */
  GRISTMILL_NO_ROOM = 4       /* the context or the caller's buffer is too small */
};

typedef struct gristmill_model gristmill_model;
typedef struct gristmill_session gristmill_session;

typedef struct gristmill_error {
  uint32_t struct_size; /* set to sizeof(gristmill_error) */
  uint32_t reserved;
  int64_t offset; /* byte of the file, or -1 */
  char text[320];
} gristmill_error;

typedef struct gristmill_sequence { /* what one session of gristmill_eval_batch appends */
  gristmill_session* session;
  const int32_t* ids;
  int64_t n;
} gristmill_sequence;

typedef struct gristmill_sampling {
  uint32_t struct_size; /* set to sizeof(gristmill_sampling) */
  float temperature;    /* 0: the most probable token, the lowest id wins ties */
  int32_t top_k;        /* 0: all */
  float top_p;          /* 1: all */
  float min_p;          /* 0: all; relative to the most probable token */
  uint32_t reserved;
  uint64_t seed; /* the draw is a pure function of (seed, position) */
} gristmill_sampling;

GRISTMILL_API uint32_t gristmill_abi_version(void);

/* verify != 0: also compare the digests the file carries with its bytes. */
GRISTMILL_API int gristmill_model_open(gristmill_model** model, const char* path, int verify, gristmill_error* error);
/* The bytes stay the caller's and must outlive the model. */
GRISTMILL_API int gristmill_model_open_memory(gristmill_model** model, const void* data, int64_t bytes, int verify,
                                              gristmill_error* error);
GRISTMILL_API void gristmill_model_close(gristmill_model* model); /* after its sessions; NULL is allowed */

GRISTMILL_API int64_t gristmill_vocab_size(const gristmill_model* model);
GRISTMILL_API int64_t gristmill_context_length(const gristmill_model* model);
GRISTMILL_API int32_t gristmill_bos_id(const gristmill_model* model); /* these are -1 where the model has none */
GRISTMILL_API int32_t gristmill_eos_id(const gristmill_model* model);
GRISTMILL_API int32_t gristmill_fim_prefix_id(const gristmill_model* model);
GRISTMILL_API int32_t gristmill_fim_suffix_id(const gristmill_model* model);
GRISTMILL_API int32_t gristmill_fim_middle_id(const gristmill_model* model);
/* 1: every prompt begins with the bos id; gristmill_tokenize does not add it. */
GRISTMILL_API int gristmill_add_bos(const gristmill_model* model);
/* 1 where a text ends at this id: eos, or one of the fill-in-the-middle tokens, which no text contains. */
GRISTMILL_API int gristmill_is_end(const gristmill_model* model, int32_t id);
/* How a prompt with a gap is laid out. 0: prefix id, prefix, suffix id, suffix, middle id; else: prefix id, suffix id,
   suffix, middle id, prefix. The model writes what stands between. */
GRISTMILL_API int gristmill_fim_suffix_first(const gristmill_model* model);
GRISTMILL_API void gristmill_digest(const gristmill_model* model, char hex[65]); /* sha256 of the file */
/* Runs the prompts stored in the file and compares with the stored ids. *count: vectors compared. */
GRISTMILL_API int gristmill_selftest(const gristmill_model* model, int64_t* count, gristmill_error* error);

/* Writes at most `capacity` ids and the number needed to *count; no bos id is added. special != 0: names of special
 * tokens become ids. */
GRISTMILL_API int gristmill_tokenize(const gristmill_model* model, const char* text, int64_t bytes, int special,
                                     int32_t* ids, int64_t capacity, int64_t* count, gristmill_error* error);
/* The bytes of a token, not terminated, valid while the model lives. */
GRISTMILL_API int gristmill_token_bytes(const gristmill_model* model, int32_t id, const char** data, int64_t* bytes);

/* Bytes that a session of n_ctx tokens allocates beyond the file's mapping. */
GRISTMILL_API int gristmill_plan(const gristmill_model* model, int64_t n_ctx, int64_t* bytes, gristmill_error* error);
GRISTMILL_API int gristmill_session_new(gristmill_session** session, const gristmill_model* model, int64_t n_ctx,
                                        gristmill_error* error);
GRISTMILL_API void gristmill_session_close(gristmill_session* session); /* NULL is allowed */
GRISTMILL_API int64_t gristmill_session_length(const gristmill_session* session);
/* Keeps the first n tokens, so that a later text can reuse their common beginning. */
GRISTMILL_API int gristmill_session_truncate(gristmill_session* session, int64_t n, gristmill_error* error);
/* Appends n ids; logits (vocab_size) of the last one. No memory is allocated. */
GRISTMILL_API int gristmill_eval(gristmill_session* session, const int32_t* ids, int64_t n, float* logits,
                                 gristmill_error* error);
/* The same for several sessions of one model in one step, each given once: every weight is read once for all of them,
 * and the logits (count, vocab_size) have the bits that gristmill_eval gives each alone. On failure no session has
 * changed. All sessions belong to the calling thread during the call. */
GRISTMILL_API int gristmill_eval_batch(const gristmill_sequence* sequences, int64_t count, float* logits,
                                       gristmill_error* error);
/* Draws from logits (vocab_size) of the given session; position: number of tokens before the drawn one, prompt
   included, which is gristmill_session_length. So the same seed draws the same tokens in every program. */
GRISTMILL_API int gristmill_sample(gristmill_session* session, const float* logits, const gristmill_sampling* sampling,
                                   int64_t position, int32_t* id, gristmill_error* error);

#ifdef __cplusplus
}
#endif
#endif
