// How a text is cut into pieces before bytes are merged, by the name in tokenizer.ggml.pre. Each rule equals a regular
// expression of python/gristmill/data/pieces.py and is compared with the library `tokenizers`.
#pragma once
#include "support.h"

namespace gristmill::runtime {

struct Pieces {
  const char* name;
  bool newlines;         // Llama 3's expression: a letter takes any sign before it, signs and spaces take line ends
  int32_t digits;        // numbers in one piece; 0: all
  bool digits_first;     // numbers are cut out before anything else
  bool whole;            // a piece that is a token is taken without merging
  bool bos_when_silent;  // a file that does not say whether a text begins with bos means yes
};

const Pieces* find_pieces(Str name);  // null where unknown
const char* pieces_names();           // for messages

// End of the piece that begins at `at` < n.
int64_t piece_end(const Pieces& pieces, const uint8_t* p, int64_t at, int64_t n);

}  // namespace gristmill::runtime
