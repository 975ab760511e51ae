/* Continues a text with the most probable tokens: example MODEL.gguf "def add(" 40 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gristmill.h"

int main(int argc, char** argv) {
  gristmill_error error = {.struct_size = sizeof error};
  gristmill_sampling greedy = {.struct_size = sizeof greedy, .top_p = 1.0f};
  gristmill_model* model = NULL;
  gristmill_session* session = NULL;
  int32_t ids[4096], id = 0;
  int64_t n = 0, bos = 0, steps = argc > 3 ? atol(argv[3]) : 40;
  if (argc < 3) return fprintf(stderr, "usage: example MODEL.gguf TEXT [TOKENS]\n"), 2;
  int status = gristmill_model_open(&model, argv[1], 1, &error);
  float* logits = status ? NULL : malloc(sizeof(float) * (size_t)gristmill_vocab_size(model));
  if (!status) status = gristmill_session_new(&session, model, gristmill_context_length(model), &error);
  if (!status && gristmill_add_bos(model)) ids[bos++] = gristmill_bos_id(model);
  if (!status)
    status = gristmill_tokenize(model, argv[2], (int64_t)strlen(argv[2]), 1, ids + bos, 4096 - bos, &n, &error);
  if (!status) status = gristmill_eval(session, ids, bos + n, logits, &error);
  for (int64_t i = 0; !status && i < steps; ++i) {
    const char* text = NULL;
    status = gristmill_sample(session, logits, &greedy, gristmill_session_length(session), &id, &error);
    if (status || gristmill_is_end(model, id)) break;
    gristmill_token_bytes(model, id, &text, &n);
    fwrite(text, 1, (size_t)n, stdout);
    if (i + 1 < steps) status = gristmill_eval(session, &id, 1, logits, &error);
  }
  if (status) fprintf(stderr, "\n%s\n", error.text);
  gristmill_session_close(session);
  gristmill_model_close(model);
  free(logits);
  return status ? 1 : 0;
}
